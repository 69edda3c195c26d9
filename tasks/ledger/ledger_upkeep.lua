-- Publish again what is due, and what a person does with evaluations.

-- Accounts of which something is held, the default one first; those of which nothing is any more are forgotten.
local function accounts_on_hold()
  local found = { DEFAULT }
  for _, account in ipairs(redis.call('SMEMBERS', KEYS[17])) do
    if redis.call('EXISTS', held('live', account), held('backfill', account)) > 0 then
      found[#found + 1] = account
    else
      redis.call('SREM', KEYS[17], account)
    end
  end
  return found
end

-- limit, patience with live, patience with backfill, then for each account (name, limit of those that wait for a hold
-- to end in the live queue, the same in the other) -> (queue, id)... to publish. What waits for an account that is not
-- named stays where it is.
function verbs.claim(limit, live, backfill, ...)
  local named, claimed, of_held = { ... }, {}, {}
  local function claim(key, before, most)
    local room = math.min(most or tonumber(limit), tonumber(limit) - #claimed / 2)
    if room <= 0 then return end
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', before, 'LIMIT', 0, room)) do
      local job = load(id)
      if key == leased then
        job.lease, job.lost = nil, job.lost + 1
        save(id, job)
      end
      move(id, job, 'queued', now)
      claimed[#claimed + 1] = job.queue
      claimed[#claimed + 1] = id
    end
  end
  for i = 1, #named, 3 do
    of_held[named[i]] = { live = tonumber(named[i + 1]), backfill = tonumber(named[i + 2]) }
  end
  claim(leased, now)
  claim(parked, now)
  claim(held_by_runs, tonumber(redis.call('HGET', KEYS[11], 'refusals_accepted') or 0))
  local accounts = accounts_on_hold()
  -- An account of which very many are held leaves room to the others.
  local share = math.ceil(tonumber(limit) / #accounts)
  for _, queue in ipairs({ 'live', 'backfill' }) do
    for _, account in ipairs(accounts) do
      local most = of_held[account]
      if most then claim(held(queue, account), '+inf', math.min(most[queue], share)) end
    end
  end
  for _, queue in ipairs({ 'live', 'backfill' }) do
    local patience = queue == 'live' and live or backfill
    local reached = tonumber(redis.call('HGET', KEYS[11], queue) or 0)
    claim(queued[queue], math.max(now - tonumber(patience), reached - OVERTAKEN))
  end
  return claimed
end

-- id... -> for each (state, cause), '' for what there is not
function verbs.locate(...)
  local found = {}
  for _, id in ipairs({ ... }) do
    local job, letter = load(id), redis.call('HGET', dead, id)
    local of = job or letter and cjson.decode(letter)
    found[#found + 1] = job and state_of(id, job) or letter and 'dead' or ''
    found[#found + 1] = of and of.cause or ''
  end
  return found
end

-- -> how many leases were ended. Only for who knows that no worker is alive.
function verbs.end_leases()
  local ids = redis.call('ZRANGE', leased, 0, -1)
  for _, id in ipairs(ids) do redis.call('ZADD', leased, now, id) end
  return #ids
end

-- outcome that is taken back, id... -> the IDs that were dead letters and are tried anew
function verbs.redrive(outcome, ...)
  local redriven = {}
  for _, id in ipairs({ ... }) do
    local letter = pop_dead_letter(id)
    if letter then
      count(letter.runs, outcome, -1)
      local renewed = { queue = letter.queue, account = letter.account, refresh = letter.refresh,
                     refresh_outcomes = letter.refresh_outcomes, even_if_erased = letter.even_if_erased,
                     attempts = 0, lost = 0, suspect = true, accepted = letter.accepted, asked = now,
                     trigger = letter.trigger, evidence = letter.evidence, event_at = letter.event_at,
                     without_request = letter.without_request, runs = letter.runs, unnamed = letter.unnamed }
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

-- outcome, id -> 1 when there is no trace of it any more, 0 when a worker has it now
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
  return 1
end

-- A full Redis refuses a script's first write that may need memory, but none after another write. Nothing more may be
-- accepted then; what has been accepted goes on to its end.
if ARGV[1] ~= 'accept' and ARGV[1] ~= 'begin' and ARGV[1] ~= 'feed' then redis.call('DEL', KEYS[12]) end

local answer = verbs[ARGV[1]](unpack(ARGV, 2))
write_all()
write_counters()
return answer
