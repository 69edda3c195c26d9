-- The ledger: what was accepted and has no outcome yet.
--
-- One script with a verb, so that all of them share one reading of the keys and each is one atomic step.
-- Times are milliseconds of Redis's own clock; no worker's clock is ever compared with another's.
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
--                                 for each part of unchanged, such as unchanged:no_documents; for a run with a list
--                                 also listed, its fingerprint, and how many of it are fed and unfed;
--                                 changed: when one of them last did; account: whom its first evaluation was asked with
-- KEYS[11] reached          HASH  queue -> since when the youngest that was taken from it had been queued
-- KEYS[12] never            a key that is never there
-- KEYS[13] feeding          ZSET  name of a run that is fed from its list -> since when
-- KEYS[14] event:           prefix of events that were accepted, STRING, for a week
-- KEYS[15] causes           ZSET  cause -> how many dead letters have it
-- KEYS[16] dead:            prefix of the dead letters of each cause, ZSET  eval_id -> when its last attempt failed
-- KEYS[17] accounts         SET   accounts but for default of which something may be held
--
-- An job stands in exactly one of the six ZSETs of its account. Which one it is, is its state. For each run
-- total = unfed + queued + leased + parked + held + all its outcomes.

local entries, leased, parked, dead, runs, feeding = KEYS[1], KEYS[4], KEYS[5], KEYS[8], KEYS[9], KEYS[13]
local queued = { live = KEYS[2], backfill = KEYS[3] }
-- A queue keeps its order: whoever is still there when those are taken that came so much later (ms) is not in it.
local OVERTAKEN = 60 * 1000
local LAST = 30 * 24 * 60 * 60 * 1000
local WEEK = 7 * 24 * 60 * 60
local DEFAULT = 'default'

local function held(queue, account)
  local of_default = queue == 'live' and KEYS[6] or KEYS[7]
  return account == DEFAULT and of_default or of_default .. ':' .. account
end

-- The set of a state that an job is in, or would be in; `gone` and `new` have none.
local function state_key(job, state)
  if state == 'queued' then return queued[job.queue] end
  if state == 'held' then return held(job.queue, job.account) end
  return state == 'leased' and leased or state == 'parked' and parked or nil
end

-- Every set that an job may be in.
local function sets_of(job)
  return {
    { 'queued', queued.live }, { 'queued', queued.backfill }, { 'leased', leased }, { 'parked', parked },
    { 'held', held('live', job.account) }, { 'held', held('backfill', job.account) },
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

-- Put an job into one state, out of every other; `gone` is a state, too, and `new` one to come from.
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

-- Only who holds the lease may speak for an job.
local function owned_job(id, token)
  local job = load(id)
  return job and job.lease == token and job
end

-- An evaluation ended. If it was asked for again meanwhile, it starts again; older versions always meant a refresh.
local function finish_job(id, job)
  move(id, job, 'gone', nil, 'leased')
  local again = job.again
  if not again then return redis.call('HDEL', entries, id) end
  count(again.runs, 'queued', -1)
  local renewed = { queue = again.queue, account = job.account, refresh = again.refresh ~= false, attempts = 0, lost = 0,
                 refresh_outcomes = again.refresh_outcomes, even_if_erased = again.even_if_erased, accepted = now,
                 trigger = again.trigger, trace = again.trace, evidence = again.evidence, runs = again.runs }
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

-- What a webhook tells of an evaluation is kept, whoever asked for it first; so are the outcomes to refresh.
local function add_lists(job, order)
  for _, field in ipairs({ 'evidence', 'refresh_outcomes' }) do
    for _, item in ipairs(order[field] or {}) do
      job[field] = job[field] or {}
      if not contains(job[field], item) then job[field][#job[field] + 1] = item end
    end
  end
end

-- Accept an evaluation that the ledger does not know; those of an order are all alike, so their job is made once.
-- Return 1 to publish it now, 2 if it is parked first.
local function accept_new(id, order, dead_before)
  if not order.job then
    order.job = { queue = order.queue, account = order.account, refresh = order.refresh,
                    even_if_erased = order.even_if_erased or nil, attempts = 0, lost = 0, accepted = now,
                    trigger = order.trigger, trace = order.trace, runs = {} }
    if order.run ~= '' then
      order.job.runs[1] = order.run
      index_run(order.run, order.account)
    end
    add_lists(order.job, order)
    order.text = cjson.encode(order.job)
  end
  local text = order.text
  if dead_before then
    pop_dead_letter(id)
    local job = cjson.decode(text)
    job.suspect = true
    text = cjson.encode(job)
  end
  local state = order.delay > 0 and 'parked' or 'queued'
  batch_write('HSET', entries, id, text)
  batch_write('ZADD', state_key(order.job, state), now + order.delay, id)
  if not order.listed then count(order.job.runs, 'total', 1) end
  count(order.job.runs, state, 1)
  return state == 'queued' and 1 or 2
end

-- Accept an evaluation that is in the ledger already; return whether to publish it.
local function accept_known(id, job, order)
  local publish, run = false, order.run
  if (order.refresh or order.refresh_outcomes or order.even_if_erased) and redis.call('ZSCORE', leased, id) then
    local again = job.again or { queue = order.queue, trigger = order.trigger, trace = order.trace, runs = {}, due = 0,
                                 refresh = false }
    job.again = again
    again.refresh = again.refresh ~= false or order.refresh or not order.refresh_outcomes
    again.due = math.max(again.due, now + order.delay)
    again.even_if_erased = again.even_if_erased or order.even_if_erased or nil
    if order.queue == 'live' then again.queue = 'live' end
    add_lists(again, order)
    -- A run that waits for it already gets one outcome, that of the attempt under way.
    if join_run(job, again.runs, run, order.listed) then count({ run }, 'queued', 1) end
  else
    job.refresh = job.refresh or order.refresh
    job.even_if_erased = job.even_if_erased or order.even_if_erased or nil
    add_lists(job, order)
    if join_run(job, job.runs, run, order.listed) then count({ run }, state_of(id, job), 1) end
    -- What is live does not wait behind a backfill that named it first.
    if order.queue == 'live' and job.queue == 'backfill' then
      local since = redis.call('ZSCORE', held('backfill', job.account), id)
      local waits = redis.call('ZSCORE', queued.backfill, id)
      job.queue, job.asked = 'live', now
      if waits then
        move(id, job, 'queued', now)
        publish = true
      elseif since then
        move(id, job, 'held', since)
      end
    end
  end
  save(id, job)
  return publish
end

-- order: queue, account, delay, refresh, refresh_outcomes, even_if_erased, run, trigger, evidence, listed, trace
--   -> for each ID: 1 publish it, 2 it is new and parked first, 0 no need
local function accept_all(ids, order)
  local answer, new = {}, {}
  local texts, letters = read_all('HMGET', entries, ids), {}
  if redis.call('HLEN', dead) > 0 then letters = read_all('HMGET', dead, ids) end
  order = cjson.decode(order)
  for i, id in ipairs(ids) do
    if texts[i] or new[id] then
      if new[id] then write_all() end
      answer[i] = accept_known(id, load(id), order) and 1 or 0
    else
      new[id] = true
      answer[i] = accept_new(id, order, letters[i])
    end
  end
  return answer
end

-- event (or ''), order, id... -> as accept_all; nothing where the event has been accepted before
function verbs.accept(event, order, ...)
  if event ~= '' and not redis.call('SET', KEYS[14] .. event, 1, 'NX', 'EX', WEEK) then
    -- Replicas are waited for by what was written: this is, so that an event which they had not yet is asked for, too.
    redis.call('EXPIRE', KEYS[14] .. event, WEEK)
    return {}
  end
  return accept_all({ ... }, order)
end

-- run, total, fingerprint, account -> 'begun', 'known' where it was begun before, 'taken' where the name means other IDs
function verbs.begin(run, total, fingerprint, account)
  local key = KEYS[10] .. run
  local known = redis.call('HMGET', key, 'total', 'listed')
  local answer = 'known'
  if not known[1] then
    redis.call('HSET', key, 'listed', fingerprint, 'total', total, 'unfed', total, 'fed', 0)
    index_run(run, account)
    answer = 'begun'
  elseif known[2] ~= fingerprint then
    return 'taken'
  else
    -- As with an event that comes again: what replicas are to have has to be written.
    redis.call('HSET', key, 'listed', fingerprint)
  end
  if tonumber(redis.call('HGET', key, 'unfed')) > 0 then redis.call('ZADD', feeding, 'NX', now, run) end
  return answer
end

-- run, position of the first ID in its list, backlog, order, id... -> as accept_all; nothing where the ledger is full,
-- or somebody else fed these
function verbs.feed(run, position, backlog, order, ...)
  local key, ids = KEYS[10] .. run, { ... }
  if redis.call('HGET', key, 'fed') ~= position then return {} end
  if redis.call('HLEN', entries) >= tonumber(backlog) then return {} end
  local answer = accept_all(ids, order)
  redis.call('HINCRBY', key, 'fed', #ids)
  if redis.call('HINCRBY', key, 'unfed', -#ids) <= 0 then redis.call('ZREM', feeding, run) end
  return answer
end

-- Remember how far a queue has been worked off.
local function record_progress(queue, since)
  local before = redis.call('HGET', KEYS[11], queue)
  if not before or tonumber(since) > tonumber(before) then redis.call('HSET', KEYS[11], queue, since) end
end

-- Return the state that an evaluation which is not queued may be taken from, if it may.
local function leasable_state(id)
  local ends, due = redis.call('ZSCORE', leased, id), redis.call('ZSCORE', parked, id)
  if ends and tonumber(ends) <= now then return 'leased' end
  return due and tonumber(due) <= now and 'parked'
end

-- lease, token, id... -> for each: the job, or '' where there is nothing to do
function verbs.lease(lease, token, ...)
  local ids, answer, taken, alike, since, scores = { ... }, {}, {}, {}, {}, {}
  local texts, ends = read_all('HMGET', entries, ids), now + tonumber(lease)
  for i, id in ipairs(ids) do
    local text = not taken[id] and texts[i]
    -- Evaluations of one order have the same job, and so has what is made of it here.
    local made = text and alike[text]
    if text and not made then
      local job = cjson.decode(text)
      job.lease = token
      made = { job = job, text = cjson.encode(job) }
      alike[text] = made
    end
    local queue = made and made.job.queue
    if queue and not scores[queue] then scores[queue] = read_all('ZMSCORE', queued[queue], ids) end
    local score = queue and scores[queue][i]
    local from = score and 'queued' or made and leasable_state(id)
    answer[i] = from and made.text or ''
    if score then
      since[queue] = score
    elseif from == 'leased' then
      local job = cjson.decode(made.text)
      job.lost = job.lost + 1
      answer[i] = cjson.encode(job)
    end
    if from then
      taken[id] = true
      batch_write('HSET', entries, id, answer[i])
      if from ~= 'leased' then batch_write('ZREM', state_key(made.job, from), id) end
      batch_write('ZADD', leased, ends, id)
      count(made.job.runs, from, -1)
      count(made.job.runs, 'leased', 1)
    end
  end
  for queue, score in pairs(since) do record_progress(queue, score) end
  return answer
end

-- lease, then (id, token)... -> the IDs whose lease is no longer ours
function verbs.extend(lease, ...)
  local pairs_, lost = { ... }, {}
  for i = 1, #pairs_, 2 do
    if owned_job(pairs_[i], pairs_[i + 1]) then
      redis.call('ZADD', leased, 'XX', now + tonumber(lease), pairs_[i])
    else
      lost[#lost + 1] = pairs_[i]
    end
  end
  return lost
end

-- -> milliseconds since it was accepted, wanted live, or redriven, at least 1; 0 where the lease is no longer ours
local function complete_one(token, id, outcome, job)
  if job.lease ~= token then return 0 end
  count(job.runs, outcome, 1)
  if job.again then
    finish_job(id, job)
  else
    count(job.runs, 'leased', -1)
    batch_write('ZREM', leased, id)
    batch_write('HDEL', entries, id)
  end
  return math.max(1, now - (job.asked or job.accepted))
end

-- (token, id, outcome)... -> for each: what `complete_one` says, -1 where the job cannot be read: one that is damaged must
-- not keep those beside it, whose counters are written when all is done, from their end.
function verbs.complete(...)
  local ends, ids, answer, settled, alike = { ... }, {}, {}, {}, {}
  for i = 2, #ends, 3 do ids[#ids + 1] = ends[i] end
  local texts = read_all('HMGET', entries, ids)
  for i, id in ipairs(ids) do
    local text, read, said = not settled[id] and texts[i], true, 0
    local job = text and alike[text]
    if text and not job then
      read, job = pcall(cjson.decode, text)
      if read then alike[text] = job end
    end
    if text and read then read, said = pcall(complete_one, ends[3 * i - 2], id, ends[3 * i], job) end
    settled[id] = read and said > 0
    answer[i] = read and said or -1
  end
  return answer
end

-- token, id, wait, attempts, cause, why, status -> 1, or 0 where the lease is no longer ours
function verbs.retry_later(token, id, wait, attempts, cause, why, status)
  local job = owned_job(id, token)
  if not job then return 0 end
  job.lease, job.attempts, job.cause = nil, tonumber(attempts), cause
  job.suspect, job.first, job.forbidden = true, job.first or now, job.forbidden or cause == 'forbidden' and now or nil
  save(id, job)
  move(id, job, 'parked', now + tonumber(wait), 'leased')
  return 1
end

-- token, id, cause, suspect (0|1) -> 1, or 0 where the lease is no longer ours
function verbs.await_hold(token, id, cause, suspect)
  local job = owned_job(id, token)
  if not job then return 0 end
  job.lease, job.cause = nil, cause
  if suspect == '1' then job.suspect, job.first = true, job.first or now end
  save(id, job)
  -- Where only room is wanting there is no probe to carry, and those that failed before are not kept back for it.
  local last = job.suspect and cause ~= 'account_busy'
  move(id, job, 'held', last and now + LAST or now, 'leased')
  return 1
end

-- id...: an outage was to blame; those that are parked get an attempt back and wait for its end
function verbs.refund_attempts(...)
  for _, id in ipairs({ ... }) do
    local job = redis.call('ZSCORE', parked, id) and load(id)
    if job and job.attempts > 0 then
      job.attempts = job.attempts - 1
      save(id, job)
      move(id, job, 'held', now + LAST, 'parked')
    end
  end
end

-- token, id -> 1, or 0 where the lease is no longer ours
function verbs.release(token, id)
  local job = owned_job(id, token)
  if not job then return 0 end
  job.lease = nil
  save(id, job)
  move(id, job, 'queued', now, 'leased')
  return 1
end

-- token, id, outcome, attempts, cause, why, status -> 1, or 0 where the lease is no longer ours
function verbs.dead_letter(token, id, outcome, attempts, cause, why, status)
  local job = owned_job(id, token)
  if not job then return 0 end
  count(job.runs, outcome, 1)
  -- What has been asked for again meanwhile is no dead letter: it starts anew.
  if not job.again then
    redis.call('HSET', dead, id, cjson.encode({ cause = cause, why = why, status = tonumber(status),
      attempts = tonumber(attempts), account = job.account, queue = job.queue, refresh = job.refresh,
      refresh_outcomes = job.refresh_outcomes, even_if_erased = job.even_if_erased, accepted = job.accepted,
      first = job.first or now, last = now, trigger = job.trigger, evidence = job.evidence, runs = job.runs }))
    redis.call('ZADD', KEYS[16] .. cause, now, id)
    redis.call('ZINCRBY', KEYS[15], 1, cause)
  end
  finish_job(id, job)
  return 1
end

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
                     trigger = letter.trigger, evidence = letter.evidence, runs = letter.runs }
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
