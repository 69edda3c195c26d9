-- The ledger: what was accepted and has no outcome yet.
--
-- The files ledger_*.lua are one script, joined in the order that ledger.py names: one reading of the keys, and each verb
-- is one atomic step. Times are milliseconds of Redis's own clock; no worker's clock is ever compared with another's.
--
-- KEYS[1]  entries          HASH  eval_id -> job, as JSON (see tasks/ledger/ledger.py)
-- KEYS[2]  queued:live      ZSET  eval_id -> since when it is in the queue
-- KEYS[3]  queued:backfill  ZSET  the same for the other queue
-- KEYS[4]  leased           ZSET  eval_id -> when the lease runs out
-- KEYS[5]  parked           ZSET  eval_id -> when it is due
-- KEYS[6]  held:live        ZSET  eval_id -> since when it waits for its account, or the archive, which is on hold;
--                                 for a suspect a month later, for it is to carry a probe only where no other is left.
--                                 That is for the account default; each other one has its own, `held:live:{account}`,
--                                 so that the hold of one neither holds nor probes what waits for another
-- KEYS[7]  held:backfill    ZSET  the same for the other queue
-- KEYS[8]  dead             HASH  eval_id -> dead letter, as JSON
-- KEYS[9]  runs             ZSET  name of a run -> since when it exists
-- KEYS[10] run:             prefix of the runs' counters, HASH: total, one field for each state and each outcome, and
--                                 for each part of unchanged, such as unchanged:no_documents; for a run with a list also
--                                 listed, its fingerprint, and how many of it are fed and unfed;
--                                 changed: when one of them last did; account: whom its first evaluation was asked with;
--                                 delivered: RiskOS had documents; refusals, refused: how many answers it had without
--                                 documents before that, and the first evaluations; refusals_accepted: they are expected;
--                                 cancelled_at: when it was cancelled, if it has a list; cancellations: as in `reached`,
--                                 when it began
-- KEYS[11] reached          HASH  queue -> since when the youngest that was taken from it had been queued;
--                                 refusals_accepted: when a run that was on hold for its refusals last went on;
--                                 cancellations: how many steps cancelled evaluations by ID, or some in flight
-- KEYS[12] never            a key that is never there
-- KEYS[13] feeding          ZSET  name of a run that is fed from its list -> since when
-- KEYS[14] event:           prefix of events that were accepted, STRING, for a week
-- KEYS[15] causes           ZSET  cause -> how many dead letters have it
-- KEYS[16] dead:            prefix of the dead letters of each cause, ZSET  eval_id -> when its last attempt failed
-- KEYS[17] accounts         SET   accounts but for default of which something may be held
-- KEYS[18] refused          ZSET  name of a run that is on hold -> since when: its first answers were all refusals
-- KEYS[19] held:runs        ZSET  eval_id -> since when it waits for its runs, which are all on hold
-- KEYS[20] live:refusals    HASH  account -> how many live answers in a row were refusals that no evidence explains
-- KEYS[21] cancelling       ZSET  name of a run whose evaluations are being cancelled -> since when
-- KEYS[22] lists            ZSET  name of a run whose list is not fed to its end -> since when
-- KEYS[23] cancelled        ZSET  eval_id -> number of the cancellation that took it back; kept while there are such lists
--
-- A job stands in exactly one of the seven ZSETs of its account. Which one it is, is its state. For each run
-- total = unfed + queued + leased + parked + held + all its outcomes.

local entries, leased, parked, dead, runs, feeding = KEYS[1], KEYS[4], KEYS[5], KEYS[8], KEYS[9], KEYS[13]
local queued = { live = KEYS[2], backfill = KEYS[3] }
local refused, held_by_runs, live_refusals = KEYS[18], KEYS[19], KEYS[20]
local cancelling, lists, cancelled = KEYS[21], KEYS[22], KEYS[23]
-- A queue keeps its order: whoever is still there when those are taken that came so much later (ms) is not in it.
local OVERTAKEN = 60 * 1000
local LAST = 30 * 24 * 60 * 60 * 1000
local WEEK = 7 * 24 * 60 * 60
local DEFAULT = 'default'

local function held(queue, account)
  local of_default = queue == 'live' and KEYS[6] or KEYS[7]
  return account == DEFAULT and of_default or of_default .. ':' .. account
end

-- The set of a state that a job is in, or would be in; `gone` and `new` have none.
local function state_key(job, state)
  if state == 'queued' then return queued[job.queue] end
  if state == 'held' then return held(job.queue, job.account) end
  return state == 'leased' and leased or state == 'parked' and parked or nil
end

-- Every set that a job may be in.
local function sets_of(job)
  return {
    { 'queued', queued.live }, { 'queued', queued.backfill }, { 'leased', leased }, { 'parked', parked },
    { 'held', held('live', job.account) }, { 'held', held('backfill', job.account) }, { 'held', held_by_runs },
  }
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Redis takes several thousand arguments for a command, and a call costs more than what it does for one evaluation: so
-- those of a verb are read together, and what it writes for all alike is written together when it is done.
local PIECE = 2000
local writes = {}

local function read_all(command, key, ids)
  local found = {}
  for start = 1, #ids, PIECE do
    local some = redis.call(command, key, unpack(ids, start, math.min(start + PIECE - 1, #ids)))
    for i = 1, #some do found[start + i - 1] = some[i] end
  end
  return found
end

local function batch_write(command, key, ...)
  local of_key = writes[command .. key]
  if not of_key then
    of_key = { command = command, key = key, args = {} }
    writes[command .. key] = of_key
  end
  local args, more = of_key.args, { ... }
  for i = 1, #more do args[#args + 1] = more[i] end
end

local function write_all()
  for _, of_key in pairs(writes) do
    for start = 1, #of_key.args, PIECE do
      redis.call(of_key.command, of_key.key, unpack(of_key.args, start, math.min(start + PIECE - 1, #of_key.args)))
    end
  end
  writes = {}
end

local function load(id)
  local text = redis.call('HGET', entries, id)
  return text and cjson.decode(text)
end

local function save(id, job)
  redis.call('HSET', entries, id, cjson.encode(job))
end

local function state_of(id, job)
  for _, set in ipairs(sets_of(job)) do
    if redis.call('ZSCORE', set[2], id) then return set[1] end
  end
end

-- What changes in the counters of runs is added up, and written down when the verb is done: for a hundred
-- evaluations of a run that is as much as for one.
local changes = {}

local function count(list, field, by)
  for _, run in ipairs(list) do
    local change = changes[run]
    if not change then
      change = {}
      changes[run] = change
    end
    change[field] = (change[field] or 0) + by
  end
end

local function write_counters()
  for run, change in pairs(changes) do
    for field, by in pairs(change) do
      if by ~= 0 then redis.call('HINCRBY', KEYS[10] .. run, field, by) end
      local whole = string.match(field, '^(.+):')
      if whole then redis.call('HINCRBY', KEYS[10] .. run, whole, by) end
    end
    redis.call('HSET', KEYS[10] .. run, 'changed', string.format('%.0f', now))
  end
end

-- Put a job into one state, out of every other; `gone` is a state, too, and `new` one to come from.
local function move(id, job, state, score, from)
  local into = state_key(job, state)
  if not from then
    for _, set in ipairs(sets_of(job)) do
      if set[2] ~= into and redis.call('ZREM', set[2], id) == 1 then from = set[1] end
    end
  elseif from ~= 'new' and state_key(job, from) ~= into then
    redis.call('ZREM', state_key(job, from), id)
  end
  if state == 'held' and job.account ~= DEFAULT then redis.call('SADD', KEYS[17], job.account) end
  if into and redis.call('ZADD', into, score, id) == 0 then from = state end
  if from == state then return end
  if from and from ~= 'new' then count(job.runs, from, -1) end
  if into then count(job.runs, state, 1) end
end

-- See that a run is there.
local function index_run(run, account)
  if redis.call('ZADD', runs, 'NX', now, run) == 1 then redis.call('HSET', KEYS[10] .. run, 'account', account) end
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

-- What is known of an evaluation is kept, whichever order brought it; of several times the latest counts.
local function add_facts(job, facts)
  if not facts then return end
  add_to_list(job, 'evidence', facts.evidence)
  if facts.event_at then job.event_at = math.max(job.event_at or 0, facts.event_at) end
end

-- Name a run among those that wait for an evaluation, in `list`; return whether it did not yet.
local function join_run(job, list, run, listed)
  if run == '' then return false end
  local known = contains(job.runs, run) or job.again and contains(job.again.runs, run)
  -- What a list has is in the total of its run already; and is there twice if somebody else named it for the run, too.
  if listed and known then count({ run }, 'total', -1) end
  if known then return false end
  list[#list + 1] = run
  if not changes[run] then index_run(run, job.account) end
  if not listed then count({ run }, 'total', 1) end
  return true
end

-- Return whether only runs that are on hold want an evaluation.
local function waits_for_runs(job)
  if job.queue == 'live' or job.unnamed or #job.runs == 0 then return false end
  for _, run in ipairs(job.runs) do
    if not redis.call('ZSCORE', refused, run) then return false end
  end
  return true
end

-- Keep an evaluation until one of its runs goes on.
local function hold_for_runs(id, text, from)
  local job = cjson.decode(text)
  job.lease, job.cause = nil, 'run_held'
  save(id, job)
  redis.call('ZREM', state_key(job, from), id)
  redis.call('ZADD', held_by_runs, now, id)
  count(job.runs, from, -1)
  count(job.runs, 'held', 1)
end

-- Only who holds the lease may speak for a job.
local function owned_job(id, token)
  local job = load(id)
  return job and job.lease == token and job
end

-- An evaluation ended. If it was asked for again meanwhile, it starts again; older versions always meant a refresh.
-- Without `from` it is taken out of whatever set it is in.
local function finish_job(id, job, from)
  move(id, job, 'gone', nil, from)
  local again = job.again
  if not again then return redis.call('HDEL', entries, id) end
  count(again.runs, 'queued', -1)
  add_facts(job, again) -- older versions kept the evidence there
  local renewed = { queue = again.queue, account = job.account, refresh = again.refresh ~= false, attempts = 0, lost = 0,
                 refresh_outcomes = again.refresh_outcomes, even_if_erased = again.even_if_erased, accepted = now,
                 trigger = again.trigger, trace = again.trace, evidence = job.evidence, event_at = job.event_at,
                 without_request = again.without_request, runs = again.runs, unnamed = again.unnamed }
  save(id, renewed)
  move(id, renewed, 'parked', math.max(now, again.due), 'new')
end

-- Take a dead letter away, from everywhere it stands; return what it said, if there was one.
local function pop_dead_letter(id)
  local text = redis.call('HGET', dead, id)
  if not text then return end
  local letter = cjson.decode(text)
  redis.call('HDEL', dead, id)
  -- Those that an older version wrote down stand in no list of a cause.
  if redis.call('ZREM', KEYS[16] .. letter.cause, id) == 1 then
    redis.call('ZINCRBY', KEYS[15], -1, letter.cause)
    redis.call('ZREMRANGEBYSCORE', KEYS[15], '-inf', 0)
  end
  return letter
end

local verbs = {}
