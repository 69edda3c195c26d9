-- Detect an outage: more evaluations fail than can be their own fault.
--
-- KEYS[1]  window        LIST    results of the last evaluations, newest last: '+' for a success, the ID for a failure
-- KEYS[2]  unused        a key that never exists (see holds.lua)
-- KEYS[3]  last success  STRING  when an evaluation last succeeded (seconds); expires after an hour
--
-- ARGV: successes since the last call, ID of a failed evaluation or '', size of the window, share of failures in the
--       window that is an outage
-- Answer: { is_first, failed }
--   is_first  1 if the reported successes are the first in an hour
--   failed    the IDs of the failed evaluations if this is an outage, else none. It is one if more than the share of the
--             window failed, at least ten. It is one, too, if the last three failed and none succeeded in an hour, or the
--             last twenty failed and none succeeded in a minute. The answer includes failures from a little before the
--             window, because successes of another process may be reported between them.

redis.call('DEL', KEYS[2])

local WINDOW, SHARE, LEAST_FAILURES, HOUR = tonumber(ARGV[3]), tonumber(ARGV[4]), 10, 60 * 60
local FEW = 3
local KEPT = math.max(100, 2 * WINDOW)
-- In a window of any size, this many failures in a row are an outage if the last success is this many seconds ago. An
-- attempt does not take that long.
local IN_A_ROW, SILENCE = 20, 60

local successes, failed = tonumber(ARGV[1]), ARGV[2]
local now = tonumber(redis.call('TIME')[1])
local last_success = tonumber(redis.call('GET', KEYS[3]) or nil)
local is_first = successes > 0 and not last_success and 1 or 0
if successes > 0 then
  last_success = now
  redis.call('SET', KEYS[3], now, 'EX', HOUR)
end
-- As long as nothing has failed, successes need not be kept.
if failed == '' and redis.call('EXISTS', KEYS[1]) == 0 then return { is_first, {} } end

for _ = 1, math.min(successes, WINDOW) do redis.call('RPUSH', KEYS[1], '+') end
if failed ~= '' then redis.call('RPUSH', KEYS[1], failed) end
redis.call('LTRIM', KEYS[1], -KEPT, -1)
redis.call('EXPIRE', KEYS[1], HOUR)

local kept, failed_ids, failures, in_a_row = redis.call('LRANGE', KEYS[1], 0, -1), {}, 0, 0
for i, each in ipairs(kept) do
  in_a_row = each ~= '+' and in_a_row + 1 or 0
  if each ~= '+' then
    failed_ids[#failed_ids + 1] = each
    if i > #kept - WINDOW then failures = failures + 1 end
  end
end
local most = failures >= LEAST_FAILURES and failures > SHARE * math.min(#kept, WINDOW)
local silent = in_a_row >= IN_A_ROW and math.abs(now - (last_success or 0)) >= SILENCE
silent = silent or in_a_row >= FEW and not last_success
return { is_first, (most or silent) and failed_ids or {} }
