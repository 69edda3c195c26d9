-- Do most evaluations fail, so that it is none of their own doing?
--
-- KEYS[1]  window  LIST    how the last evaluations went, the newest last: '+' answered, else the ID of one that failed
-- KEYS[2]  never   a key that is never there (see hold.lua)
--
-- ARGV: how many went well since we last told, ID of one that failed or ''
-- Answer: the IDs of those that failed, where they are the most; else none

redis.call('DEL', KEYS[2])

local WINDOW, ENOUGH, REMEMBERED = 20, 10, 60 * 60

local well, failed = tonumber(ARGV[1]), ARGV[2]
-- Who only tells of success has nothing to say where nothing failed.
if failed == '' and redis.call('EXISTS', KEYS[1]) == 0 then return {} end

for _ = 1, math.min(well, WINDOW) do redis.call('RPUSH', KEYS[1], '+') end
if failed ~= '' then redis.call('RPUSH', KEYS[1], failed) end
redis.call('LTRIM', KEYS[1], -WINDOW, -1)
redis.call('EXPIRE', KEYS[1], REMEMBERED)

local window, failures = redis.call('LRANGE', KEYS[1], 0, -1), {}
for _, each in ipairs(window) do
  if each ~= '+' then failures[#failures + 1] = each end
end
return #failures >= ENOUGH and #failures * 2 > #window and failures or {}
