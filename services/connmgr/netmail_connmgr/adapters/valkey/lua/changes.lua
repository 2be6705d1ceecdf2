#!lua flags=allow-oom
-- Gives what the log has behind a position, and cleans up a little. ARGV: revision and tag of the
-- position, how many entries, how many logins to clean up at most.
-- Gives now, how many logins there are, the log's revision, entries; in the place of these nil if
-- the position is none of this log: it was cut, or another primary has gone on differently.
local at, tagged = tonumber(ARGV[4]), ARGV[5]
local swept = sweep(tonumber(ARGV[7]))
forget_marks()
if swept > 0 then
  save()
else
  save_clock()
end
local size = redis.call('ZCARD', ENDS)

local function known()
  if at == rev then
    return tagged == tag
  end
  if at > rev then
    return false
  end
  if at == 0 then
    local first = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1]
    return first and first[1] == '1-1'
  end
  local id = string.format('%.0f-1', at)
  local last = redis.call('XRANGE', LOG, id, id)[1]
  return last and last[2][2] == tagged
end

if not known() then
  return {now, size, rev, false}
end
if at == rev then
  return {now, size, rev, {}}
end
local after = string.format('(%.0f-1', at)
return {now, size, rev, redis.call('XRANGE', LOG, after, '+', 'COUNT', ARGV[6])}
