-- Load and save jobs, move them from state to state, and finish them.
--
-- Keys: DEFAULT, causes, damaged, dead, entries, held_accounts, held_by_runs, letters_key, now, refused, run_key,
--   runs, sets_of, state_key.
-- Uses: JOB, LETTER, decode, is_list (entry); changes, count (writes).

local function save(id, job)
  redis.call('HSET', entries, id, cjson.encode(job))
end

-- Return the state of a job: the first of its sets that has it.
local function state_of(id, job)
  for _, set in ipairs(sets_of(job)) do
    if redis.call('ZSCORE', set[2], id) then return set[1] end
  end
end

-- Return the runs that a damaged text names, as far as they can be recognized, and the runs of its next attempt.
local function runs_of_damaged(text)
  local has_read, job = pcall(cjson.decode, text)
  if has_read and type(job) == 'table' and is_list(job.runs) then
    local again = type(job.again) == 'table' and job.again.runs
    return job.runs, is_list(again) and again or {}
  end
  local found = {}
  for name in string.gmatch(string.match(text, '"runs":%[(.-)%]') or '', '"([%w._-]+)"') do
    if redis.call('ZSCORE', runs, name) then found[#found + 1] = name end
  end
  return found, {}
end

local function fail_runs(list, state)
  count(list, state, -1)
  count(list, 'failed', 1)
end

local has_damaged = redis.call('EXISTS', damaged) == 1

-- Remove an evaluation with a damaged entry from every set, and keep the text in `damaged` for an operator.
local function quarantine_entry(id, text)
  local of_runs, again = runs_of_damaged(text)
  local accounts = redis.call('SMEMBERS', held_accounts)
  accounts[#accounts + 1] = DEFAULT
  for _, account in ipairs(accounts) do
    for _, set in ipairs(sets_of({ account = account })) do
      if redis.call('ZREM', set[2], id) == 1 then fail_runs(of_runs, set[1]) end
    end
  end
  fail_runs(again, 'queued')
  redis.call('HDEL', entries, id)
  redis.call('HSET', damaged, id, text)
  has_damaged = true
end

-- Return the job in a text, or nil if the text is damaged, which sets the evaluation aside.
local function read_job(id, text)
  local job = decode(text, JOB)
  if not job then quarantine_entry(id, text) end
  return job
end

local function load(id)
  local text = redis.call('HGET', entries, id)
  return text and read_job(id, text) or nil
end

-- Move a job to a state and out of every other one, and update the counters of its runs.
-- `gone` removes it. `from` is its current state, if the caller knows that, or `new`.
local function move(id, job, state, score, from)
  local into = state_key(job, state)
  if not from then
    for _, set in ipairs(sets_of(job)) do
      if set[2] ~= into and redis.call('ZREM', set[2], id) == 1 then from = set[1] end
    end
  elseif from ~= 'new' and state_key(job, from) ~= into then
    redis.call('ZREM', state_key(job, from), id)
  end
  if state == 'held' and job.account ~= DEFAULT then redis.call('SADD', held_accounts, job.account) end
  if into and redis.call('ZADD', into, score, id) == 0 then from = state end
  if from == state then return end
  if from and from ~= 'new' then count(job.runs, from, -1) end
  if into then count(job.runs, state, 1) end
end

-- Record a run, unless it exists.
local function index_run(run, account)
  if redis.call('ZADD', runs, 'NX', now, run) == 1 then redis.call('HSET', run_key(run), 'account', account) end
end

local function contains(list, item)
  for _, each in ipairs(list) do
    if each == item then return true end
  end
  return false
end

local function add_to_list(job, field, items)
  for _, item in ipairs(items or {}) do
    job[field] = job[field] or {}
    if not contains(job[field], item) then job[field][#job[field] + 1] = item end
  end
end

-- Add facts about an evaluation to its job, from any order. The latest event time counts.
local function add_facts(job, facts)
  if not facts then return end
  add_to_list(job, 'evidence', facts.evidence)
  if facts.event_at then job.event_at = math.max(job.event_at or 0, facts.event_at) end
end

-- Return the time before which erasures do not stop a job. Older versions recorded `true` for the time of acceptance.
local function covered_until(flag, accepted)
  return flag == true and accepted or flag or nil
end

-- Return the later of two times, either of which may be missing.
local function later(one, other)
  return one and other and math.max(one, other) or one or other or nil
end

-- Add a run to a list of runs that wait for an evaluation; return whether it did not wait before.
local function join_run(job, list, run, listed)
  if run == '' then return false end
  local known = contains(job.runs, run) or job.again and contains(job.again.runs, run)
  -- The total of a run includes its list from the start. An evaluation that was also ordered for the run by ID would be
  -- counted twice.
  if listed and known then count({ run }, 'total', -1) end
  if known then return false end
  list[#list + 1] = run
  if not changes[run] then index_run(run, job.account) end
  if not listed then count({ run }, 'total', 1) end
  return true
end

-- Return whether all orders of an evaluation are from runs that are on hold.
local function waits_for_runs(job)
  if job.queue == 'live' or job.unnamed or #job.runs == 0 then return false end
  for _, run in ipairs(job.runs) do
    if not redis.call('ZSCORE', refused, run) then return false end
  end
  return true
end

-- Hold an evaluation until one of its runs resumes.
local function hold_for_runs(id, text, from)
  local job = decode(text, JOB)
  job.lease, job.cause = nil, 'run_held'
  save(id, job)
  redis.call('ZREM', state_key(job, from), id)
  redis.call('ZADD', held_by_runs, now, id)
  count(job.runs, from, -1)
  count(job.runs, 'held', 1)
end

-- Return the job of an evaluation, or a false value if the token is not that of its lease.
local function owned_job(id, token)
  local job = load(id)
  return job and job.lease == token and job
end

-- Return a copy of a job, or of a dead letter, without some fields. Fields of a newer release are kept.
local function copy_without(job, ...)
  local copy = {}
  for field, value in pairs(job) do copy[field] = value end
  for _, field in ipairs({ ... }) do copy[field] = nil end
  return copy
end

-- Return when the next attempt of an evaluation is due, by a clock that may have been set back since it was ordered.
local function due_of(again)
  return again.due - math.max(0, (again.accepted or now) - now)
end

-- Remove an evaluation that ended, or start it again if it was ordered again during its attempt.
-- `again` of an older version always means a refresh. Without `from` the state of the job is looked up.
local function finish_job(id, job, from)
  move(id, job, 'gone', nil, from)
  local again = job.again
  if not again then return redis.call('HDEL', entries, id) end
  count(again.runs, 'queued', -1)
  add_facts(job, again) -- older versions kept the evidence there
  local renewed = copy_without(again, 'due', 'orders')
  renewed.account, renewed.refresh, renewed.attempts, renewed.lost = job.account, again.refresh ~= false, 0, 0
  renewed.accepted, renewed.evidence, renewed.event_at = now, job.evidence, job.event_at
  renewed.even_if_erased = covered_until(again.even_if_erased, job.accepted)
  save(id, renewed)
  move(id, renewed, 'parked', math.max(now, due_of(again)), 'new')
end

-- Keep the text of a damaged dead letter in `damaged`, and remove it from the sets of all causes.
local function quarantine_letter(id, text)
  for _, cause in ipairs(redis.call('ZRANGE', causes, 0, -1)) do
    if redis.call('ZREM', letters_key(cause), id) == 1 then redis.call('ZINCRBY', causes, -1, cause) end
  end
  redis.call('ZREMRANGEBYSCORE', causes, '-inf', 0)
  redis.call('HSET', damaged, id, text)
  has_damaged = true
end

-- Remove a dead letter, and return it if there was one.
local function pop_dead_letter(id)
  local text = redis.call('HGET', dead, id)
  if not text then return end
  local letter = decode(text, LETTER)
  redis.call('HDEL', dead, id)
  if not letter then return quarantine_letter(id, text) end
  -- Dead letters of an older version are not in the set of their cause.
  if redis.call('ZREM', letters_key(letter.cause), id) == 1 then
    redis.call('ZINCRBY', causes, -1, letter.cause)
    redis.call('ZREMRANGEBYSCORE', causes, '-inf', 0)
  end
  return letter
end
