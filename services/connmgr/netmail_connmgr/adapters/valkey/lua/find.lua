#!lua flags=allow-oom
-- Finds live logins. ARGV: places. Gives now, then for each place: whether one has expired, then
-- users and logins.
local results = {}
for index = 4, #ARGV do
  local place = ARGV[index]
  local found = redis.call('HGETALL', P .. ':at:' .. place)
  local live = {0}
  for at = 1, #found, 2 do
    local _, _, expires = struct.unpack('>ddd', found[at + 1])
    if expires > now then
      live[#live + 1] = found[at]
      live[#live + 1] = found[at + 1]
    end
  end
  if #live == 1 then
    local gone = redis.call('ZSCORE', GONE, place)
    if #found > 0 or (gone and now - gone < LIFETIME) then
      live[1] = 1
    end
  end
  results[#results + 1] = live
end
save_clock()
return {now, results}
