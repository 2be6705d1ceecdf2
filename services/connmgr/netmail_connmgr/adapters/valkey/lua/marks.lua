#!lua flags=allow-oom
-- Gives revocations. ARGV: a cursor, how many, about. Gives now, the next cursor (0: the end),
-- subjects and marks.
local found = redis.call('HSCAN', MARKS, ARGV[4], 'COUNT', ARGV[5])
for index = 2, #found[2], 2 do
  local made, epoch = read_mark(found[2][index])
  local _, _, _, rest = struct.unpack('>ddd', found[2][index])
  found[2][index] = struct.pack('>ddd', made, epoch, leapt) .. string.sub(found[2][index], rest)
end
save_clock()
return {now, found[1], found[2]}
