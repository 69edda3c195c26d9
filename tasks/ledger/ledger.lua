-- The ledger: what was accepted and has no outcome yet.
--
-- One script with a verb, so that all of them share one reading of the keys and each is one atomic step.
-- Times are milliseconds of Redis's own clock; no worker's clock is ever compared with another's.
--
-- KEYS[1]  entries          HASH  eval_id -> entry, as JSON (see tasks/ledger/ledger.py)
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
-- KEYS[10] run:             prefix of the runs' counters, HASH: total, one field for each state and each outcome; for a
--                                 run with a list also listed, its fingerprint, and how many of it are fed and unfed;
--                                 changed: when one of them last did; account: whom its first evaluation was asked with
-- KEYS[11] reached          HASH  queue -> since when the youngest that was taken from it had been queued
-- KEYS[12] never            a key that is never there
-- KEYS[13] feeding          ZSET  name of a run that is fed from its list -> since when
-- KEYS[14] event:           prefix of events that were accepted, STRING, for a week
-- KEYS[15] causes           ZSET  cause -> how many dead letters have it
-- KEYS[16] dead:            prefix of the dead letters of each cause, ZSET  eval_id -> when its last attempt failed
-- KEYS[17] accounts         SET   accounts but for default of which something may be held
--
-- An entry stands in exactly one of the six ZSETs of its account. Which one it is, is its state. For each run
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

-- The set of a state that an entry is in, or would be in; `gone` and `new` have none.
local function place(entry, state)
  if state == 'queued' then return queued[entry.queue] end
  if state == 'held' then return held(entry.queue, entry.account) end
  return state == 'leased' and leased or state == 'parked' and parked or nil
end

-- Every set that an entry may be in.
local function sets_of(entry)
  return {
    { 'queued', queued.live }, { 'queued', queued.backfill }, { 'leased', leased }, { 'parked', parked },
    { 'held', held('live', entry.account) }, { 'held', held('backfill', entry.account) },
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

local function later(command, key, ...)
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

local function save(id, entry)
  local text = cjson.encode(entry)
  redis.call('HSET', entries, id, text)
  return text
end

local function state_of(id, entry)
  for _, set in ipairs(sets_of(entry)) do
    if redis.call('ZSCORE', set[2], id) then return set[1] end
  end
end

-- What changes in the counters of runs is added up, and written down when the verb is done: for a hundred
-- evaluations of a run that is as much as for one.
local changes = {}

local function tally(list, field, by)
  for _, run in ipairs(list) do
    local change = changes[run]
    if not change then
      change = {}
      changes[run] = change
    end
    change[field] = (change[field] or 0) + by
  end
end

local function write_changes()
  for run, change in pairs(changes) do
    for field, by in pairs(change) do
      if by ~= 0 then redis.call('HINCRBY', KEYS[10] .. run, field, by) end
    end
    redis.call('HSET', KEYS[10] .. run, 'changed', string.format('%.0f', now))
  end
end

-- Put an entry into one state, out of every other; `gone` is a state, too, and `new` one to come from.
local function move(id, entry, state, score, from)
  local into = place(entry, state)
  if not from then
    for _, set in ipairs(sets_of(entry)) do
      if set[2] ~= into and redis.call('ZREM', set[2], id) == 1 then from = set[1] end
    end
  elseif from ~= 'new' and place(entry, from) ~= into then
    redis.call('ZREM', place(entry, from), id)
  end
  if state == 'held' and entry.account ~= DEFAULT then redis.call('SADD', KEYS[17], entry.account) end
  if into and redis.call('ZADD', into, score, id) == 0 then from = state end
  if from == state then return end
  if from and from ~= 'new' then tally(entry.runs, from, -1) end
  if into then tally(entry.runs, state, 1) end
end

-- See that a run is there.
local function know(run, account)
  if redis.call('ZADD', runs, 'NX', now, run) == 1 then redis.call('HSET', KEYS[10] .. run, 'account', account) end
end

local function contains(list, item)
  for _, each in ipairs(list) do
    if each == item then return true end
  end
  return false
end

-- Name a run among those that wait for an evaluation, in `list`; return whether it did not yet.
local function join(entry, list, run, listed)
  if run == '' then return false end
  local known = contains(entry.runs, run) or entry.again and contains(entry.again.runs, run)
  -- What a list has is in the total of its run already; and is there twice if somebody else named it for the run, too.
  if listed and known then tally({ run }, 'total', -1) end
  if known then return false end
  list[#list + 1] = run
  if not changes[run] then know(run, entry.account) end
  if not listed then tally({ run }, 'total', 1) end
  return true
end

-- Only who holds the lease may speak for an entry.
local function ours(id, token)
  local entry = load(id)
  return entry and entry.lease == token and entry
end

-- An evaluation ended. Was it asked for again meanwhile, then it starts anew.
local function finish(id, entry)
  move(id, entry, 'gone', nil, 'leased')
  local again = entry.again
  if not again then
    redis.call('HDEL', entries, id)
    return
  end
  tally(again.runs, 'queued', -1)
  local anew = { queue = again.queue, account = entry.account, refresh = true, even_if_erased = again.even_if_erased,
                 attempts = 0, lost = 0, accepted = now, trigger = again.trigger, trace = again.trace,
                 evidence = again.evidence, runs = again.runs }
  save(id, anew)
  move(id, anew, 'parked', math.max(now, again.due), 'new')
end

-- Take a dead letter away, from everywhere it stands; return what it said, if there was one.
local function take_letter(id)
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

-- What a webhook tells of an evaluation is kept, whoever asked for it first.
local function add_evidence(entry, evidence)
  for _, fact in ipairs(evidence) do
    entry.evidence = entry.evidence or {}
    if not contains(entry.evidence, fact) then entry.evidence[#entry.evidence + 1] = fact end
  end
end

-- Accept an evaluation that the ledger does not know; those of an order are all alike, so their entry is made once.
local function accept_new(id, order, dead_before)
  if not order.entry then
    order.entry = { queue = order.queue, account = order.account, refresh = order.refresh,
                    even_if_erased = order.even_if_erased or nil, attempts = 0, lost = 0, accepted = now,
                    trigger = order.trigger, trace = order.trace, runs = {} }
    if order.run ~= '' then
      order.entry.runs[1] = order.run
      know(order.run, order.account)
    end
    add_evidence(order.entry, order.evidence)
    order.text = cjson.encode(order.entry)
  end
  local text = order.text
  if dead_before then
    take_letter(id)
    local entry = cjson.decode(text)
    entry.suspect = true
    text = cjson.encode(entry)
  end
  local state = order.delay > 0 and 'parked' or 'queued'
  later('HSET', entries, id, text)
  later('ZADD', place(order.entry, state), now + order.delay, id)
  if not order.listed then tally(order.entry.runs, 'total', 1) end
  tally(order.entry.runs, state, 1)
  return state == 'queued'
end

-- Accept an evaluation that is in the ledger already; return whether to publish it.
local function accept_known(id, entry, order)
  local publish, run = false, order.run
  if (order.refresh or order.even_if_erased) and redis.call('ZSCORE', leased, id) then
    entry.again = entry.again or { queue = order.queue, trigger = order.trigger, trace = order.trace, runs = {},
                                   due = 0 }
    local again = entry.again
    again.due = math.max(again.due, now + order.delay)
    again.even_if_erased = again.even_if_erased or order.even_if_erased or nil
    if order.queue == 'live' then again.queue = 'live' end
    add_evidence(again, order.evidence)
    -- A run that waits for it already gets one outcome, that of the attempt under way.
    if join(entry, again.runs, run, order.listed) then tally({ run }, 'queued', 1) end
  else
    entry.refresh = entry.refresh or order.refresh
    entry.even_if_erased = entry.even_if_erased or order.even_if_erased or nil
    add_evidence(entry, order.evidence)
    if join(entry, entry.runs, run, order.listed) then tally({ run }, state_of(id, entry), 1) end
    -- What is live does not wait behind a backfill that named it first.
    if order.queue == 'live' and entry.queue == 'backfill' then
      local since = redis.call('ZSCORE', held('backfill', entry.account), id)
      local waits = redis.call('ZSCORE', queued.backfill, id)
      entry.queue, entry.asked = 'live', now
      if waits then
        move(id, entry, 'queued', now)
        publish = true
      elseif since then
        move(id, entry, 'held', since)
      end
    end
  end
  save(id, entry)
  return publish
end

-- order: queue, account, delay, refresh, even_if_erased, run, trigger, evidence, listed, trace
--   -> for each ID: 1 publish it, 0 no need
local function accept_all(ids, order)
  local answer, new = {}, {}
  local texts, letters = read_all('HMGET', entries, ids), {}
  if redis.call('HLEN', dead) > 0 then letters = read_all('HMGET', dead, ids) end
  order = cjson.decode(order)
  for i, id in ipairs(ids) do
    local publish
    if texts[i] or new[id] then
      if new[id] then write_all() end
      publish = accept_known(id, load(id), order)
    else
      new[id] = true
      publish = accept_new(id, order, letters[i])
    end
    answer[i] = publish and 1 or 0
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
    know(run, account)
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
local function reach(queue, since)
  local before = redis.call('HGET', KEYS[11], queue)
  if not before or tonumber(since) > tonumber(before) then redis.call('HSET', KEYS[11], queue, since) end
end

-- Return the state that an evaluation which is not queued may be taken from, if it may.
local function may_be_taken(id)
  local ends, due = redis.call('ZSCORE', leased, id), redis.call('ZSCORE', parked, id)
  if ends and tonumber(ends) <= now then return 'leased' end
  return due and tonumber(due) <= now and 'parked'
end

-- lease, token, id... -> for each: the entry, or '' where there is nothing to do
function verbs.take(lease, token, ...)
  local ids, answer, taken, alike, since, scores = { ... }, {}, {}, {}, {}, {}
  local texts, ends = read_all('HMGET', entries, ids), now + tonumber(lease)
  for i, id in ipairs(ids) do
    local text = not taken[id] and texts[i]
    -- Evaluations of one order have the same entry, and so has what is made of it here.
    local made = text and alike[text]
    if text and not made then
      local entry = cjson.decode(text)
      entry.lease = token
      made = { entry = entry, text = cjson.encode(entry) }
      alike[text] = made
    end
    local queue = made and made.entry.queue
    if queue and not scores[queue] then scores[queue] = read_all('ZMSCORE', queued[queue], ids) end
    local score = queue and scores[queue][i]
    local from = score and 'queued' or made and may_be_taken(id)
    answer[i] = from and made.text or ''
    if score then
      since[queue] = score
    elseif from == 'leased' then
      local entry = cjson.decode(made.text)
      entry.lost = entry.lost + 1
      answer[i] = cjson.encode(entry)
    end
    if from then
      taken[id] = true
      later('HSET', entries, id, answer[i])
      if from ~= 'leased' then later('ZREM', place(made.entry, from), id) end
      later('ZADD', leased, ends, id)
      tally(made.entry.runs, from, -1)
      tally(made.entry.runs, 'leased', 1)
    end
  end
  for queue, score in pairs(since) do reach(queue, score) end
  return answer
end

-- lease, then (id, token)... -> the IDs whose lease is no longer ours
function verbs.extend(lease, ...)
  local pairs_, lost = { ... }, {}
  for i = 1, #pairs_, 2 do
    if ours(pairs_[i], pairs_[i + 1]) then
      redis.call('ZADD', leased, 'XX', now + tonumber(lease), pairs_[i])
    else
      lost[#lost + 1] = pairs_[i]
    end
  end
  return lost
end

-- -> milliseconds since it was accepted, wanted live, or redriven, at least 1; 0 where the lease is no longer ours
local function settle(token, id, outcome, entry)
  if entry.lease ~= token then return 0 end
  tally(entry.runs, outcome, 1)
  if entry.again then
    finish(id, entry)
  else
    tally(entry.runs, 'leased', -1)
    later('ZREM', leased, id)
    later('HDEL', entries, id)
  end
  return math.max(1, now - (entry.asked or entry.accepted))
end

-- (token, id, outcome)... -> for each: what `settle` says, -1 where the entry cannot be read: one that is damaged must
-- not keep those beside it, whose counters are written when all is done, from their end.
function verbs.settle(...)
  local ends, ids, answer, settled, alike = { ... }, {}, {}, {}, {}
  for i = 2, #ends, 3 do ids[#ids + 1] = ends[i] end
  local texts = read_all('HMGET', entries, ids)
  for i, id in ipairs(ids) do
    local text, read, said = not settled[id] and texts[i], true, 0
    local entry = text and alike[text]
    if text and not entry then
      read, entry = pcall(cjson.decode, text)
      if read then alike[text] = entry end
    end
    if text and read then read, said = pcall(settle, ends[3 * i - 2], id, ends[3 * i], entry) end
    settled[id] = read and said > 0
    answer[i] = read and said or -1
  end
  return answer
end

-- token, id, wait, attempts, cause, why, status -> 1, or 0 where the lease is no longer ours
function verbs.park(token, id, wait, attempts, cause, why, status)
  local entry = ours(id, token)
  if not entry then return 0 end
  entry.lease, entry.attempts, entry.cause = nil, tonumber(attempts), cause
  entry.suspect, entry.first = true, entry.first or now
  save(id, entry)
  move(id, entry, 'parked', now + tonumber(wait), 'leased')
  return 1
end

-- token, id, cause, suspect (0|1) -> 1, or 0 where the lease is no longer ours
function verbs.await_hold(token, id, cause, suspect)
  local entry = ours(id, token)
  if not entry then return 0 end
  entry.lease, entry.cause = nil, cause
  if suspect == '1' then entry.suspect, entry.first = true, entry.first or now end
  save(id, entry)
  -- Where only room is wanting there is no probe to carry, and those that failed before are not kept back for it.
  local last = entry.suspect and cause ~= 'account_busy'
  move(id, entry, 'held', last and now + LAST or now, 'leased')
  return 1
end

-- id...: an outage was to blame; those that are parked get an attempt back and wait for its end
function verbs.forgive(...)
  for _, id in ipairs({ ... }) do
    local entry = redis.call('ZSCORE', parked, id) and load(id)
    if entry and entry.attempts > 0 then
      entry.attempts = entry.attempts - 1
      save(id, entry)
      move(id, entry, 'held', now + LAST, 'parked')
    end
  end
end

-- token, id -> 1, or 0 where the lease is no longer ours
function verbs.hand_back(token, id)
  local entry = ours(id, token)
  if not entry then return 0 end
  entry.lease = nil
  save(id, entry)
  move(id, entry, 'queued', now, 'leased')
  return 1
end

-- token, id, outcome, attempts, cause, why, status -> 1, or 0 where the lease is no longer ours
function verbs.bury(token, id, outcome, attempts, cause, why, status)
  local entry = ours(id, token)
  if not entry then return 0 end
  tally(entry.runs, outcome, 1)
  -- What has been asked for again meanwhile is no dead letter: it starts anew.
  if not entry.again then
    redis.call('HSET', dead, id, cjson.encode({ cause = cause, why = why, status = tonumber(status),
      attempts = tonumber(attempts), account = entry.account, queue = entry.queue, refresh = entry.refresh,
      even_if_erased = entry.even_if_erased, accepted = entry.accepted, first = entry.first or now, last = now,
      trigger = entry.trigger, evidence = entry.evidence, runs = entry.runs }))
    redis.call('ZADD', KEYS[16] .. cause, now, id)
    redis.call('ZINCRBY', KEYS[15], 1, cause)
  end
  finish(id, entry)
  return 1
end

-- Accounts of which something is held, the default one first; those of which nothing is any more are forgotten.
local function holding()
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
      local entry = load(id)
      if key == leased then
        entry.lease, entry.lost = nil, entry.lost + 1
        save(id, entry)
      end
      move(id, entry, 'queued', now)
      claimed[#claimed + 1] = entry.queue
      claimed[#claimed + 1] = id
    end
  end
  for i = 1, #named, 3 do
    of_held[named[i]] = { live = tonumber(named[i + 1]), backfill = tonumber(named[i + 2]) }
  end
  claim(leased, now)
  claim(parked, now)
  local accounts = holding()
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
function verbs.find(...)
  local found = {}
  for _, id in ipairs({ ... }) do
    local entry, letter = load(id), redis.call('HGET', dead, id)
    local of = entry or letter and cjson.decode(letter)
    found[#found + 1] = entry and state_of(id, entry) or letter and 'dead' or ''
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
    local letter = take_letter(id)
    if letter then
      tally(letter.runs, outcome, -1)
      local anew = { queue = letter.queue, account = letter.account, refresh = letter.refresh,
                     even_if_erased = letter.even_if_erased, attempts = 0, lost = 0, suspect = true,
                     accepted = letter.accepted, asked = now, trigger = letter.trigger, evidence = letter.evidence,
                     runs = letter.runs }
      save(id, anew)
      move(id, anew, 'parked', now, 'new')
      redriven[#redriven + 1] = id
    end
  end
  return redriven
end

-- id... -> the IDs that were dead letters
function verbs.drop(...)
  local dropped = {}
  for _, id in ipairs({ ... }) do
    if take_letter(id) then dropped[#dropped + 1] = id end
  end
  return dropped
end

-- outcome, id -> 1 when there is no trace of it any more, 0 when a worker has it now
function verbs.erase(outcome, id)
  local ends, entry = redis.call('ZSCORE', leased, id), load(id)
  if ends and tonumber(ends) > now then return 0 end
  if entry then
    local again = entry.again
    tally(entry.runs, outcome, 1)
    move(id, entry, 'gone')
    if again then
      tally(again.runs, 'queued', -1)
      tally(again.runs, outcome, 1)
    end
    redis.call('HDEL', entries, id)
  end
  take_letter(id)
  return 1
end

-- A full Redis refuses a script's first write that may need memory, but none after another write. Nothing more may be
-- accepted then; what has been accepted goes on to its end.
if ARGV[1] ~= 'accept' and ARGV[1] ~= 'begin' and ARGV[1] ~= 'feed' then redis.call('DEL', KEYS[12]) end

local answer = verbs[ARGV[1]](unpack(ARGV, 2))
write_all()
write_changes()
return answer
