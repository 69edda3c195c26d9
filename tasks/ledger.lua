-- The ledger: what was accepted and has no outcome yet.
--
-- One script with a verb, so that all of them share one reading of the keys and each is one atomic step.
-- Times are milliseconds of Redis's own clock; no worker's clock is ever compared with another's.
--
-- KEYS[1]  entries          HASH  eval_id -> entry, as JSON (see tasks/ledger.py)
-- KEYS[2]  queued:live      ZSET  eval_id -> since when it is in the queue
-- KEYS[3]  queued:backfill  ZSET  the same for the other queue
-- KEYS[4]  leased           ZSET  eval_id -> when the lease runs out
-- KEYS[5]  parked           ZSET  eval_id -> when it is due
-- KEYS[6]  held:live        ZSET  eval_id -> since when it waits for its account, or the archive, which is on hold;
--                                 for a suspect a month later, for it is to carry a probe only where no other is left
-- KEYS[7]  held:backfill    ZSET  the same for the other queue
-- KEYS[8]  dead             HASH  eval_id -> dead letter, as JSON
-- KEYS[9]  runs             ZSET  name of a run -> since when it exists
-- KEYS[10] run:             prefix of the runs' counters, HASH: total and one field for each outcome
-- KEYS[11] reached          HASH  queue -> since when the youngest that was taken from it had been queued
-- KEYS[12] never            a key that is never there
--
-- An entry stands in exactly one of the six ZSETs. Which one it is, is its state.

local entries, leased, parked, dead, runs = KEYS[1], KEYS[4], KEYS[5], KEYS[8], KEYS[9]
local queued = { live = KEYS[2], backfill = KEYS[3] }
-- A queue keeps its order: whoever is still there when those are taken that came so much later (ms) is not in it.
local OVERTAKEN = 60 * 1000
local LAST = 30 * 24 * 60 * 60 * 1000
local held = { live = KEYS[6], backfill = KEYS[7] }

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function load(id)
  local text = redis.call('HGET', entries, id)
  return text and cjson.decode(text)
end

local function save(id, entry)
  redis.call('HSET', entries, id, cjson.encode(entry))
end

-- Put an entry into one state, out of every other.
local function move(id, into, score)
  for _, key in ipairs({ queued.live, queued.backfill, leased, parked, held.live, held.backfill }) do
    if key ~= into then redis.call('ZREM', key, id) end
  end
  if into then redis.call('ZADD', into, score, id) end
end

local function contains(list, item)
  for _, each in ipairs(list) do
    if each == item then return true end
  end
  return false
end

-- Count an evaluation for a run once, however often it is named.
local function join_run(list, run)
  if run == '' or contains(list, run) then return end
  list[#list + 1] = run
  redis.call('ZADD', runs, 'NX', now, run)
  redis.call('HINCRBY', KEYS[10] .. run, 'total', 1)
end

local function count(entry, outcome, by)
  for _, run in ipairs(entry.runs) do
    redis.call('HINCRBY', KEYS[10] .. run, outcome, by or 1)
  end
end

-- Only who holds the lease may speak for an entry.
local function ours(id, token)
  local entry = load(id)
  return entry and entry.lease == token and entry
end

-- An evaluation ended. Was it asked for again meanwhile, then it starts anew.
local function finish(id, entry)
  if entry.again then
    save(id, { queue = entry.again.queue, account = entry.account, refresh = true, attempts = 0, lost = 0,
               accepted = now, trigger = entry.again.trigger, runs = entry.again.runs })
    move(id, parked, now)
  else
    redis.call('HDEL', entries, id)
    move(id, nil)
  end
end

local verbs = {}

-- queue, account, delay, refresh (0|1), run, trigger, id... -> for each: 1 publish it, 0 no need
function verbs.accept(queue, account, delay, refresh, run, trigger, ...)
  local answer = {}
  for i, id in ipairs({ ... }) do
    local entry, publish = load(id), 0
    if not entry then
      entry = { queue = queue, account = account, refresh = refresh == '1', attempts = 0, lost = 0,
                accepted = now, trigger = cjson.decode(trigger), runs = {} }
      join_run(entry.runs, run)
      if redis.call('HDEL', dead, id) == 1 then entry.suspect = true end
      if tonumber(delay) > 0 then
        move(id, parked, now + tonumber(delay))
      else
        move(id, queued[queue], now)
        publish = 1
      end
    elseif refresh == '1' and redis.call('ZSCORE', leased, id) then
      entry.again = entry.again or { queue = queue, trigger = cjson.decode(trigger), runs = {} }
      if queue == 'live' then entry.again.queue = 'live' end
      -- A run that waits for it already gets one outcome, that of the attempt under way.
      if not contains(entry.runs, run) then join_run(entry.again.runs, run) end
    else
      entry.refresh = entry.refresh or refresh == '1'
      if not (entry.again and contains(entry.again.runs, run)) then join_run(entry.runs, run) end
      -- What is live does not wait behind a backfill that named it first.
      if queue == 'live' and entry.queue == 'backfill' then
        entry.queue = 'live'
        local since = redis.call('ZSCORE', held.backfill, id)
        if redis.call('ZSCORE', queued.backfill, id) then
          move(id, queued.live, now)
          publish = 1
        elseif since then
          move(id, held.live, since)
        end
      end
    end
    save(id, entry)
    answer[i] = publish
  end
  return answer
end

-- Remember how far a queue has been worked off.
local function reach(queue, since)
  local before = redis.call('HGET', KEYS[11], queue)
  if not before or tonumber(since) > tonumber(before) then redis.call('HSET', KEYS[11], queue, since) end
end

-- lease, token, id... -> for each: the entry, or '' where there is nothing to do
function verbs.take(lease, token, ...)
  local answer, since = {}, {}
  for i, id in ipairs({ ... }) do
    local entry = load(id)
    local ends = entry and tonumber(redis.call('ZSCORE', leased, id) or 0) or 0
    local due = entry and tonumber(redis.call('ZSCORE', parked, id) or 0) or 0
    local waits = entry and redis.call('ZSCORE', held[entry.queue], id)
    if entry and ends <= now and due <= now and not waits then
      if ends > 0 then entry.lost = entry.lost + 1 end
      local score = redis.call('ZSCORE', queued[entry.queue], id)
      if score then since[entry.queue] = score end
      entry.lease = token
      save(id, entry)
      move(id, leased, now + tonumber(lease))
      answer[i] = cjson.encode(entry)
    else
      answer[i] = ''
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

-- token, id, outcome -> 1, or 0 where the lease is no longer ours
function verbs.settle(token, id, outcome)
  local entry = ours(id, token)
  if not entry then return 0 end
  count(entry, outcome)
  finish(id, entry)
  return 1
end

-- token, id, wait, attempts, cause, why, status -> 1, or 0 where the lease is no longer ours
function verbs.park(token, id, wait, attempts, cause, why, status)
  local entry = ours(id, token)
  if not entry then return 0 end
  entry.lease, entry.attempts, entry.cause = nil, tonumber(attempts), cause
  entry.suspect, entry.first = true, entry.first or now
  save(id, entry)
  move(id, parked, now + tonumber(wait))
  return 1
end

-- token, id, cause, suspect (0|1) -> 1, or 0 where the lease is no longer ours
function verbs.await_hold(token, id, cause, suspect)
  local entry = ours(id, token)
  if not entry then return 0 end
  entry.lease, entry.cause = nil, cause
  if suspect == '1' then entry.suspect, entry.first = true, entry.first or now end
  save(id, entry)
  move(id, held[entry.queue], entry.suspect and now + LAST or now)
  return 1
end

-- id...: an outage was to blame; those that are parked get an attempt back and wait for its end
function verbs.forgive(...)
  for _, id in ipairs({ ... }) do
    local entry = redis.call('ZSCORE', parked, id) and load(id)
    if entry and entry.attempts > 0 then
      entry.attempts = entry.attempts - 1
      save(id, entry)
      move(id, held[entry.queue], now + LAST)
    end
  end
end

-- token, id -> 1, or 0 where the lease is no longer ours
function verbs.hand_back(token, id)
  local entry = ours(id, token)
  if not entry then return 0 end
  entry.lease = nil
  save(id, entry)
  move(id, queued[entry.queue], now)
  return 1
end

-- token, id, outcome, attempts, cause, why, status -> 1, or 0 where the lease is no longer ours
function verbs.bury(token, id, outcome, attempts, cause, why, status)
  local entry = ours(id, token)
  if not entry then return 0 end
  count(entry, outcome)
  -- What has been asked for again meanwhile is no dead letter: it starts anew.
  if not entry.again then
    redis.call('HSET', dead, id, cjson.encode({ cause = cause, why = why, status = tonumber(status),
      attempts = tonumber(attempts), account = entry.account, queue = entry.queue, refresh = entry.refresh,
      accepted = entry.accepted, first = entry.first or now, last = now, trigger = entry.trigger, runs = entry.runs }))
  end
  finish(id, entry)
  return 1
end

-- limit, limit of those that wait for a hold to end in each queue, patience with live, patience with backfill
--   -> (queue, id)... to publish
function verbs.claim(limit, of_held_live, of_held_backfill, live, backfill)
  local claimed = {}
  local function claim(key, before, most)
    local room = math.min(most or tonumber(limit), tonumber(limit) - #claimed / 2)
    if room <= 0 then return end
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', before, 'LIMIT', 0, room)) do
      local entry = load(id)
      if key == leased then
        entry.lease, entry.lost = nil, entry.lost + 1
        save(id, entry)
      end
      move(id, queued[entry.queue], now)
      claimed[#claimed + 1] = entry.queue
      claimed[#claimed + 1] = id
    end
  end
  claim(leased, now)
  claim(parked, now)
  claim(held.live, '+inf', tonumber(of_held_live))
  claim(held.backfill, '+inf', tonumber(of_held_backfill))
  for _, queue in ipairs({ 'live', 'backfill' }) do
    local patience = queue == 'live' and live or backfill
    local reached = tonumber(redis.call('HGET', KEYS[11], queue) or 0)
    claim(queued[queue], math.max(now - tonumber(patience), reached - OVERTAKEN))
  end
  return claimed
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
    local text = redis.call('HGET', dead, id)
    if text then
      local letter = cjson.decode(text)
      redis.call('HDEL', dead, id)
      count(letter, outcome, -1)
      save(id, { queue = letter.queue, account = letter.account, refresh = letter.refresh, attempts = 0, lost = 0,
                 suspect = true, accepted = letter.accepted, trigger = letter.trigger, runs = letter.runs })
      move(id, parked, now)
      redriven[#redriven + 1] = id
    end
  end
  return redriven
end

-- id... -> the IDs that were dead letters
function verbs.drop(...)
  local dropped = {}
  for _, id in ipairs({ ... }) do
    if redis.call('HDEL', dead, id) == 1 then dropped[#dropped + 1] = id end
  end
  return dropped
end

-- A full Redis refuses a script's first write that may need memory, but none after another write. Nothing more may be
-- accepted then; what has been accepted goes on to its end.
if ARGV[1] ~= 'accept' then redis.call('DEL', KEYS[12]) end

return verbs[ARGV[1]](unpack(ARGV, 2))
