-- Distinguish an evaluation that the API key may not read (403) from an account whose key may read nothing.
--
-- KEYS[1]  answers   LIST  the account's last 20 answers: their time (ms), and the evaluation's ID if it was a 403
-- KEYS[2]  answered  HASH  last, last_at (ms), before, before_at: the last two evaluations that got an answer other
--                          than 403
-- KEYS[3]  unused    a key that never exists (see holds.lua)
--
-- ARGV: answers other than 403 since the last call, the evaluations of the last two of them ('' for none), then for a
--       403 its evaluation and when that first got a 403 (ms, 0 for never)
-- Answer: { verdict, control, up to three evaluations that got a 403 }
--   'account'    every recent answer was 403
--   'first'      it is the evaluation's first 403
--   'evaluation' another evaluation got an answer since this one's first 403
--   'ask'        none did; `control` is the evaluation that got an answer last
--   'unknown'    no other evaluation ever got an answer

redis.call('DEL', KEYS[3])

local WINDOW, HOUR, FIVE_MINUTES, FEW = 20, 60 * 60 * 1000, 5 * 60 * 1000, 3

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%.0f', now)
local others, latest, before, eval_id, first = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local function record(answer)
  redis.call('RPUSH', KEYS[1], answer)
  redis.call('LTRIM', KEYS[1], -WINDOW, -1)
  redis.call('PEXPIRE', KEYS[1], HOUR)
end

local function record_answered(id)
  local last, last_at = unpack(redis.call('HMGET', KEYS[2], 'last', 'last_at'))
  if last and last ~= id then redis.call('HSET', KEYS[2], 'before', last, 'before_at', last_at or 0) end
  redis.call('HSET', KEYS[2], 'last', id, 'last_at', now_text)
end

-- Return the evaluation other than this one that last got an answer other than 403, and when.
local function find_control()
  local last, last_at, other, other_at = unpack(redis.call('HMGET', KEYS[2], 'last', 'last_at', 'before', 'before_at'))
  if last and last ~= eval_id then return last, tonumber(last_at or 0) or 0 end
  if other then return other, tonumber(other_at or 0) or 0 end
  return '', 0
end

-- Return whether all recent answers were 403, and some of their evaluations.
local function examine_answers()
  local recent, examples, known, oldest = 0, {}, {}, now
  for _, answer in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    local at, id = string.match(answer, '^(%d+) ?(.*)$')
    if at and now - tonumber(at) < HOUR then
      if id == '' then return false, {} end
      recent, oldest = recent + 1, math.min(oldest, tonumber(at))
      if not known[id] and #examples < FEW then examples[#examples + 1] = id end
      known[id] = true
    end
  end
  return recent >= WINDOW or (#examples >= FEW and now - oldest > FIVE_MINUTES), examples
end

for _ = 1, math.min(others, WINDOW) do record(now_text) end
if before ~= '' then record_answered(before) end
if latest ~= '' then record_answered(latest) end
if not eval_id then return {} end

local control, answered_at = find_control()
-- This 403 is about the evaluation, so it says nothing about the account.
if first > 0 and answered_at > first then return { 'evaluation', control } end
record(now_text .. ' ' .. eval_id)
local all_forbidden, examples = examine_answers()
if all_forbidden then return { 'account', control, unpack(examples) } end
if first == 0 then return { 'first', control, unpack(examples) } end
return { control == '' and 'unknown' or 'ask', control, unpack(examples) }
