-- Do most evaluations fail, so that it is none of their own doing?
--
-- KEYS[1]  window  LIST    how the last evaluations went, the newest last: '+' answered, else the ID of one that failed
-- KEYS[2]  never   a key that is never there (see hold.lua)
--
-- ARGV: how many went well since we last told, ID of one that failed or ''
-- Answer: the IDs of those that failed, where they are the most of the window; else none. Those that failed a little
-- before it are named as well: what went well in another process may be told in between.

redis.call('DEL', KEYS[2])

local WINDOW, KEPT, ENOUGH, REMEMBERED = 20, 100, 10, 60 * 60

local well, failed = tonumber(ARGV[1]), ARGV[2]
-- Who only tells of success has nothing to say where nothing failed.
if failed == '' and redis.call('EXISTS', KEYS[1]) == 0 then return {} end

for _ = 1, math.min(well, WINDOW) do redis.call('RPUSH', KEYS[1], '+') end
if failed ~= '' then redis.call('RPUSH', KEYS[1], failed) end
redis.call('LTRIM', KEYS[1], -KEPT, -1)
redis.call('EXPIRE', KEYS[1], REMEMBERED)

local kept, named, failures = redis.call('LRANGE', KEYS[1], 0, -1), {}, 0
for i, each in ipairs(kept) do
  if each ~= '+' then
    named[#named + 1] = each
    if i > #kept - WINDOW then failures = failures + 1 end
  end
end
return failures >= ENOUGH and failures * 2 > math.min(#kept, WINDOW) and named or {}
