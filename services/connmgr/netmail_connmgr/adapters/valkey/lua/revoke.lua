#!lua
-- Ends logins and leaves a mark. ARGV: nonce, its age, network, user, epoch, bound of marks, the rest; network and user are empty for any.
-- With an age it may be made once more: then nothing is done where the mark is as strong already.
-- Gives now, how many live logins it ended.
local nonce, age = ARGV[4], tonumber(ARGV[5])
local network, user, epoch = ARGV[6], ARGV[7], tonumber(ARGV[8])
local made = now
if age > 0 then
  made = math.min(now, SENT) - age
end
forget_marks()

local by_epoch = epoch > 0 and '1' or '0'
local subject = by_epoch .. string.char(#network) .. network .. user
local earlier = redis.call('HGET', MARKS, subject)
if earlier then
  local earlier_made, earlier_epoch = read_mark(earlier)
  if age > 0 and earlier_made >= made and earlier_epoch >= epoch then
    return {now, 0}
  end
  made, epoch = math.max(made, earlier_made), math.max(epoch, earlier_epoch)
elseif redis.call('ZCARD', MADE) >= tonumber(ARGV[9]) then
  return redis.error_reply('FULL too many revocations in one day')
end
local mark = struct.pack('>ddd', made, epoch, leapt) .. ARGV[10]
redis.call('HSET', MARKS, subject, mark)
redis.call('ZADD', MADE, made, subject)

local gone, ended = {}, 0
local function judge(place, one)
  local login = redis.call('HGET', P .. ':at:' .. place, one)
  if not login then
    return
  end
  local fields = read_login(login)
  if covers(made, epoch, fields.verified, fields.epoch) then
    remove(place, one)
    gone[#gone + 1] = struct.pack('>I2', #place + #one + 1) .. member_of(place, one)
    if fields.expires > now then
      ended = ended + 1
    end
  end
end

if user ~= '' then
  for _, place in ipairs(redis.call('ZRANGE', P .. ':of:' .. user, 0, -1)) do
    if network == '' or network == network_of(place) then
      judge(place, user)
    end
  end
else
  for _, place in ipairs({network, network .. '-'}) do
    for _, one in ipairs(redis.call('HKEYS', P .. ':at:' .. place)) do
      judge(place, one)
    end
  end
end
tell(nonce, 'revoked', subject, 'as', mark, 'gone', table.concat(gone))
save()
return {now, ended}
