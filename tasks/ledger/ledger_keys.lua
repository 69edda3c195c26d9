-- Name the keys of the ledger, which records every accepted evaluation until it has an outcome.
--
-- The files ledger_*.lua are the sections of one script, joined in the order that tasks/ledger/script.py gives. ARGV is a
-- verb and its arguments, and each call is one atomic step. The head of a section lists the keys and the functions of
-- earlier sections that it uses. A comment above each verb gives its arguments and, after the arrow, its answer.
-- Times are milliseconds on Redis's own clock. The clocks of workers are never compared.
--
-- KEYS[1]  entries          HASH  eval_id -> job, as JSON (see tasks/ledger/serialization.py)
-- KEYS[2]  queued:live      ZSET  eval_id -> when it was queued
-- KEYS[3]  queued:backfill  ZSET  the same for the backfill queue
-- KEYS[4]  leased           ZSET  eval_id -> when the lease runs out
-- KEYS[5]  parked           ZSET  eval_id -> when it is due
-- KEYS[6]  held:live        ZSET  eval_id -> since when it waits for the end of a hold on its account or on the archive.
--                                 For a suspect this is a month later, so that it is a probe only if no other is left.
--                                 This key is for the account `default`. Each other account has its own,
--                                 `held:live:{account}`, so that a hold affects the evaluations of its account only
-- KEYS[7]  held:backfill    ZSET  the same for the backfill queue
-- KEYS[8]  dead             HASH  eval_id -> dead letter, as JSON
-- KEYS[9]  runs             ZSET  name of a run -> when it began
-- KEYS[10] run:{run}        HASH  counters and facts of a run (the key is the prefix):
--                                 total, and a counter for each state, for each outcome, and for each manifest outcome of
--                                 unchanged ones, such as unchanged:no_documents;
--                                 listed: fingerprint of its list; fed, unfed: how many of the list are, or are not, fed;
--                                 changed: when a counter last changed; account: the account of its first evaluation;
--                                 delivered: RiskOS had documents; refusals: number of answers without documents before
--                                 that; refused: the first evaluations with such answers;
--                                 refusals_accepted: such answers are expected;
--                                 cancelled_at: when it was cancelled, if it has a list;
--                                 cancellations: the field of `reached` when the run began
-- KEYS[11] reached          HASH  queue -> when the newest evaluation that was leased from it had been queued;
--                                 refusals_accepted: when a run that was on hold for its refusals last resumed;
--                                 cancellations: number of steps that cancelled evaluations by ID, or some in flight;
--                                 clock: the time on Redis's clock when `claim` was last called
-- KEYS[12] never                  a key that never exists
-- KEYS[13] feeding          ZSET  name of a run that is fed from its list -> since when
-- KEYS[14] event:{event}    STRING  set for a week for each accepted event (the key is the prefix)
-- KEYS[15] causes           ZSET  cause -> number of dead letters that have it
-- KEYS[16] dead:{cause}     ZSET  eval_id -> when the last attempt failed, of the dead letters with a cause (a prefix)
-- KEYS[17] accounts         SET   accounts other than `default` that may have held evaluations
-- KEYS[18] refused          ZSET  name of a run that is on hold because its first answers were all refusals -> since when
-- KEYS[19] held:runs        ZSET  eval_id -> since when it waits because all its runs are on hold
-- KEYS[20] live:refusals    HASH  account -> number of consecutive live answers that were refusals without explanation
-- KEYS[21] cancelling       ZSET  name of a run whose evaluations are being cancelled -> since when
-- KEYS[22] lists            ZSET  name of a run whose list is not completely fed -> since when
-- KEYS[23] cancelled        ZSET  eval_id -> number of the cancellation that cancelled it; deleted when `lists` is empty
-- KEYS[24] damaged          HASH  eval_id -> text of an unreadable entry or dead letter, which its runs count as failed
-- KEYS[25] taken_back       ZSET  eval_id -> when it was cancelled for all orders; the newest million that were not
--                                 accepted again
--
-- A job is in exactly one of the seven ZSETs of its account, and that set is its state. For each run,
-- total = unfed + queued + leased + parked + held + all its outcomes.

local entries, leased, parked, dead, runs, reached = KEYS[1], KEYS[4], KEYS[5], KEYS[8], KEYS[9], KEYS[11]
local queued = { live = KEYS[2], backfill = KEYS[3] }
local never, feeding, causes, held_accounts = KEYS[12], KEYS[13], KEYS[15], KEYS[17]
local refused, held_by_runs, live_refusals = KEYS[18], KEYS[19], KEYS[20]
local cancelling, lists, cancelled, damaged, taken_back = KEYS[21], KEYS[22], KEYS[23], KEYS[24], KEYS[25]

local function run_key(run) return KEYS[10] .. run end
local function event_key(event) return KEYS[14] .. event end
local function letters_key(cause) return KEYS[16] .. cause end

-- Queues keep their order. If a worker has leased an evaluation that was queued this much later (ms), the message of the
-- earlier one was lost.
local OVERTAKEN = 60 * 1000
-- Added to the score of a held suspect (ms), which puts it behind all others.
local LAST = 30 * 24 * 60 * 60 * 1000
local WEEK = 7 * 24 * 60 * 60
local DEFAULT = 'default'

-- Return the key of the held evaluations of a queue and an account.
local function held(queue, account)
  local of_default = queue == 'live' and KEYS[6] or KEYS[7]
  return account == DEFAULT and of_default or of_default .. ':' .. account
end

-- Return the queue that serves a job: `backfill` for a queue that only a newer release knows.
local function queue_of(job) return queued[job.queue] and job.queue or 'backfill' end

-- Return the key of the set for a job in a state; `gone` and `new` have none.
local function state_key(job, state)
  if state == 'queued' then return queued[queue_of(job)] end
  if state == 'held' then return held(queue_of(job), job.account) end
  return state == 'leased' and leased or state == 'parked' and parked or nil
end

-- Return the state and the key of every set that a job may be in.
local function sets_of(job)
  return {
    { 'queued', queued.live }, { 'queued', queued.backfill }, { 'leased', leased }, { 'parked', parked },
    { 'held', held('live', job.account) }, { 'held', held('backfill', job.account) }, { 'held', held_by_runs },
  }
end

local verbs = {}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
