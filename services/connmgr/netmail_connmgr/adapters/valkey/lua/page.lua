#!lua flags=allow-oom
-- Gives logins in the order of their members. ARGV: the first member as ZRANGEBYLEX wants it, the
-- last, how many. Gives now, revision, tag, then members and logins; some may be over.
local members = redis.call('ZRANGEBYLEX', ALL, ARGV[4], ARGV[5], 'LIMIT', 0, ARGV[6])
local found = {}
for _, member in ipairs(members) do
  local length = string.byte(member)
  local place = string.sub(member, 2, length + 1)
  local login = redis.call('HGET', P .. ':at:' .. place, string.sub(member, length + 2))
  found[#found + 1] = member
  found[#found + 1] = login or ''
end
save_clock()
return {now, rev, tag, found}
