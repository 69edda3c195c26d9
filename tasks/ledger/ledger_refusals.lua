-- Detect that RiskOS has no documents for any evaluation of a run, or for any live evaluation of an account.
--
-- A run goes on hold if its first 200 answers are all refusals. Live refusals are only counted, for a metric.
--
-- Keys: feeding, live_refusals, now, refused, run_key.
-- Uses: increment (writes); contains (jobs).

local REFUSALS = { no_documents = true, not_found = true, rejected = true }
local DELIVERIES = { archived = true, withheld = true, unreadable = true }
local MANY_REFUSALS, EXAMPLES = 200, 3
-- The answers of this call: of backfill evaluations by run, and of live ones by account.
local answers_of_runs, answers_of_live = {}, {}

local function note_answer_in(answers, name, id, is_refusal)
  local noted = answers[name] or { row = {}, delivered = false }
  answers[name] = noted
  if is_refusal then noted.row[#noted.row + 1] = id else noted.row, noted.delivered = {}, true end
end

-- Return whether evidence explains missing documents. A DocV step explains none.
local function is_explained(evidence)
  return #evidence > (contains(evidence, 'docv_step') and 1 or 0)
end

-- Record RiskOS's answer for an evaluation that ended: `answer` if there is one, or else what its outcome implies.
local function record_answer(id, job, outcome, answer)
  local manifest = string.match(outcome, '^unchanged:(.+)$')
  -- No request is sent for an evaluation that has a manifest, unless the order is a refresh.
  if manifest and not answer and not job.refresh and not contains(job.refresh_outcomes or {}, manifest) then return end
  answer = answer or manifest or outcome
  if not REFUSALS[answer] and not DELIVERIES[answer] then return end
  if REFUSALS[answer] and is_explained(job.evidence or {}) then return end
  if job.queue == 'live' then return note_answer_in(answers_of_live, job.account, id, REFUSALS[answer]) end
  for _, run in ipairs(job.runs) do note_answer_in(answers_of_runs, run, id, REFUSALS[answer]) end
end

-- Count refusals of a run, and put it on hold if its first answers were all refusals.
local function write_refusals(run, ids)
  local key = run_key(run)
  local fields = redis.call('HMGET', key, 'delivered', 'refusals_accepted', 'cancelled_at', 'refused')
  local examples = fields[4]
  if fields[1] or fields[2] or fields[3] then return end
  local total = increment(key, 'refusals', #ids)
  if total - #ids < EXAMPLES then
    local shown = { unpack(ids, 1, EXAMPLES - total + #ids) }
    if examples then table.insert(shown, 1, examples) end
    redis.call('HSET', key, 'refused', table.concat(shown, ' '))
  end
  if total < MANY_REFUSALS then return end
  redis.call('ZADD', refused, 'NX', now, run)
  redis.call('ZREM', feeding, run)
end

local function write_answers()
  for run, noted in pairs(answers_of_runs) do
    if noted.delivered then redis.call('HSET', run_key(run), 'delivered', 1) else write_refusals(run, noted.row) end
  end
  for account, noted in pairs(answers_of_live) do
    if noted.delivered then
      redis.call('HSET', live_refusals, account, #noted.row)
    else
      increment(live_refusals, account, #noted.row)
    end
  end
end
