-- Notice that RiskOS has documents for no evaluation of a run, or for no live one.

-- What RiskOS answered in this step for the backfill of each run, and live for each account.
local REFUSALS, DELIVERIES = { no_documents = true, not_found = true, rejected = true }, { archived = true, unreadable = true }
local MANY_REFUSALS, EXAMPLES = 200, 3
local answers_of_runs, answers_of_live = {}, {}

local function note_answer_in(answers, name, id, is_refusal)
  local noted = answers[name] or { row = {}, delivered = false }
  answers[name] = noted
  if is_refusal then noted.row[#noted.row + 1] = id else noted.row, noted.delivered = {}, true end
end

-- Return whether evidence explains missing documents; that there was a DocV step does not.
local function is_explained(evidence)
  return #evidence > (contains(evidence, 'docv_step') and 1 or 0)
end

local function note_answer(id, job, outcome, answer)
  local manifest = string.match(outcome, '^unchanged:(.+)$')
  -- RiskOS was not asked about what was in the archive, unless that was wanted.
  if manifest and not answer and not job.refresh and not contains(job.refresh_outcomes or {}, manifest) then return end
  answer = answer or manifest or outcome
  if not REFUSALS[answer] and not DELIVERIES[answer] then return end
  if REFUSALS[answer] and is_explained(job.evidence or {}) then return end
  if job.queue == 'live' then return note_answer_in(answers_of_live, job.account, id, REFUSALS[answer]) end
  for _, run in ipairs(job.runs) do note_answer_in(answers_of_runs, run, id, REFUSALS[answer]) end
end

-- Put a run on hold if its first answers were all refusals.
local function write_refusals(run, ids)
  local key = KEYS[10] .. run
  local fields = redis.call('HMGET', key, 'delivered', 'refusals_accepted', 'cancelled_at', 'refused')
  local examples = fields[4]
  if fields[1] or fields[2] or fields[3] then return end
  local total = redis.call('HINCRBY', key, 'refusals', #ids)
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
    if noted.delivered then redis.call('HSET', KEYS[10] .. run, 'delivered', 1) else write_refusals(run, noted.row) end
  end
  for account, noted in pairs(answers_of_live) do
    redis.call(noted.delivered and 'HSET' or 'HINCRBY', live_refusals, account, #noted.row)
  end
end
