-- Do most evaluations fail, so that it is none of their own doing?
--
-- KEYS[1]  window  STRING  how the last evaluations went, the newest last: '+' answered, '-' failed
-- KEYS[2]  never   a key that is never there (see hold.lua)
--
-- ARGV: how many went well since we last told, 1 where one failed
-- Answer: 1 where most of the window failed

redis.call('DEL', KEYS[2])

local WINDOW, ENOUGH, REMEMBERED = 20, 10, 60 * 60

local well, failed = tonumber(ARGV[1]), ARGV[2] == '1'
local window = redis.call('GET', KEYS[1])
-- Who only tells of success has nothing to say where nothing failed.
if not window and not failed then return 0 end

window = ((window or '') .. string.rep('+', math.min(well, WINDOW)) .. (failed and '-' or '')):sub(-WINDOW)
redis.call('SET', KEYS[1], window, 'EX', REMEMBERED)
local _, failures = window:gsub('%-', '')
return failures >= ENOUGH and failures * 2 > #window and 1 or 0
