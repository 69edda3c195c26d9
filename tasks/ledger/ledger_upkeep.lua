-- Claim due evaluations, look up and erase evaluations, and redrive and drop dead letters. Then run the verb.
--
-- Keys: DEFAULT, OVERTAKEN, damaged, dead, entries, held, held_accounts, held_by_runs, leased, never, now, parked,
--   queue_of, queued, reached, verbs.
-- Uses: LETTER, decode (entry); count, get_number, write_all, write_counters (writes); copy_without, covered_until,
--   has_damaged, load, move, pop_dead_letter, save, state_of (jobs).

-- Return the accounts that have held evaluations, the default one first, and forget those that have none any more.
local function accounts_on_hold()
  local found = { DEFAULT }
  for _, account in ipairs(redis.call('SMEMBERS', held_accounts)) do
    if redis.call('EXISTS', held('live', account), held('backfill', account)) > 0 then
      found[#found + 1] = account
    else
      redis.call('SREM', held_accounts, account)
    end
  end
  return found
end

local CLOCK_STEP = 5 * 1000
-- Maximum number of evaluations of a set whose time is corrected in one step.
local CORRECTED = 1000

-- Correct the times of evaluations that were queued or held later than now.
local function correct_later(key, score)
  local found = redis.call('ZRANGEBYSCORE', key, string.format('(%.0f', now), '+inf', 'LIMIT', 0, CORRECTED)
  for _, id in ipairs(found) do redis.call('ZADD', key, 'XX', score, id) end
end

-- If Redis's clock was set back, set the times of leases, retries, queues and held evaluations back, too.
local function follow_clock()
  local before = get_number(reached, 'clock')
  local behind = before - now
  redis.call('HSET', reached, 'clock', string.format('%.0f', now))
  for _, queue in pairs(queued) do correct_later(queue, now) end
  -- Any earlier time will do: an evaluation whose runs are still on hold is held again.
  correct_later(held_by_runs, 1)
  if behind < CLOCK_STEP then return end
  for _, key in ipairs({ leased, parked }) do
    local found = redis.call('ZRANGEBYSCORE', key, string.format('%.0f', before), '+inf', 'WITHSCORES')
    for i = 1, #found, 2 do redis.call('ZADD', key, 'XX', math.max(now, found[i + 1] - behind), found[i]) end
  end
  for _, field in ipairs({ 'live', 'backfill', 'refusals_accepted' }) do
    if get_number(reached, field) > now then redis.call('HSET', reached, field, string.format('%.0f', now)) end
  end
end

-- limit, patience of live (ms), patience of backfill (ms), then for each account (name, limit of held live evaluations,
-- limit of held backfill evaluations) -> (queue, id)... to publish
-- Held evaluations of accounts that are not named stay held.
function verbs.claim(limit, live, backfill, ...)
  local args, claimed, of_held = { ... }, {}, {}
  follow_clock()
  local function claim(key, before, most)
    most = math.min(most or tonumber(limit), tonumber(limit) - #claimed / 2)
    if most <= 0 then return end
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', before, 'LIMIT', 0, most)) do
      local job = load(id)
      if job then
        if key == leased then
          job.lease, job.lost = nil, job.lost + 1
          save(id, job)
        end
        move(id, job, 'queued', now)
        claimed[#claimed + 1] = queue_of(job)
        claimed[#claimed + 1] = id
      else
        redis.call('ZREM', key, id)
      end
    end
  end
  for i = 1, #args, 3 do
    of_held[args[i]] = { live = tonumber(args[i + 1]), backfill = tonumber(args[i + 2]) }
  end
  claim(leased, now)
  claim(parked, now)
  claim(held_by_runs, get_number(reached, 'refusals_accepted'))
  local accounts = accounts_on_hold()
  -- An account with very many held evaluations must leave some of the limit to the others.
  local share = math.ceil(tonumber(limit) / #accounts)
  for _, queue in ipairs({ 'live', 'backfill' }) do
    for _, account in ipairs(accounts) do
      local most = of_held[account]
      if most then claim(held(queue, account), '+inf', math.min(most[queue], share)) end
    end
  end
  for _, queue in ipairs({ 'live', 'backfill' }) do
    local patience = queue == 'live' and live or backfill
    local newest_leased = get_number(reached, queue)
    claim(queued[queue], math.max(now - tonumber(patience), newest_leased - OVERTAKEN))
  end
  return claimed
end

-- id... -> for each (state, cause), either of which may be ''
function verbs.locate(...)
  local found = {}
  for _, id in ipairs({ ... }) do
    local job, letter = load(id), redis.call('HGET', dead, id)
    local of, state = job or letter and decode(letter, LETTER), letter and 'dead' or ''
    if has_damaged and redis.call('HEXISTS', damaged, id) == 1 then state = 'damaged' end
    found[#found + 1] = job and state_of(id, job) or state
    found[#found + 1] = of and of.cause or ''
  end
  return found
end

-- -> how many leases were ended. Call it only if no worker is alive.
function verbs.end_leases()
  local ids = redis.call('ZRANGE', leased, 0, -1)
  for _, id in ipairs(ids) do redis.call('ZADD', leased, now, id) end
  return #ids
end

-- outcome that no longer counts, id... -> the IDs that were dead letters and are tried again
function verbs.redrive(outcome, ...)
  local redriven = {}
  for _, id in ipairs({ ... }) do
    local letter = pop_dead_letter(id)
    if letter then
      count(letter.runs, outcome, -1)
      local renewed = copy_without(letter, 'cause', 'why', 'status', 'request_id', 'first', 'last')
      renewed.attempts, renewed.lost, renewed.suspect, renewed.asked = 0, 0, true, now
      renewed.even_if_erased = covered_until(letter.even_if_erased, letter.accepted)
      save(id, renewed)
      move(id, renewed, 'parked', now, 'new')
      redriven[#redriven + 1] = id
    end
  end
  return redriven
end

-- id... -> the IDs that were dead letters
function verbs.drop(...)
  local dropped = {}
  for _, id in ipairs({ ... }) do
    if pop_dead_letter(id) then dropped[#dropped + 1] = id end
  end
  return dropped
end

-- outcome, id -> 1 if no trace of the evaluation is left, 0 if a worker has it now
function verbs.erase(outcome, id)
  local ends, job = redis.call('ZSCORE', leased, id), load(id)
  if ends and tonumber(ends) > now then return 0 end
  if job then
    count(job.runs, outcome, 1)
    move(id, job, 'gone')
    if job.again then
      count(job.again.runs, 'queued', -1)
      count(job.again.runs, outcome, 1)
    end
    redis.call('HDEL', entries, id)
  end
  pop_dead_letter(id)
  redis.call('HDEL', damaged, id)
  return 1
end

-- id... -> the IDs whose damaged entries were dropped
function verbs.drop_damaged(...)
  local dropped = {}
  for _, id in ipairs({ ... }) do
    if redis.call('HDEL', damaged, id) == 1 then dropped[#dropped + 1] = id end
  end
  return dropped
end

-- A full Redis refuses a write that may need memory only if it is the first write of a script. Verbs that accept
-- evaluations must fail then. For all others, this harmless first write lets accepted evaluations end.
if ARGV[1] ~= 'accept' and ARGV[1] ~= 'begin' and ARGV[1] ~= 'feed' then redis.call('DEL', never) end

local answer = verbs[ARGV[1]](unpack(ARGV, 2))
write_all()
write_counters()
return answer
