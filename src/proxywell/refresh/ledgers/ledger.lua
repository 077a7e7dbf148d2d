-- The rules of the books, what holders do: refresh/ledger.py, function by function.
-- Reasons are told there; here is only what they come to in this home.

local PATIENT_PLACE = 1099511627776 -- 1 << 40
local RETRY_PLACE = -2199023255552 -- -(1 << 41)
local LAST_PLACE = 2199023255552 -- 1 << 41
local LAST_TRIES = 3
local SHARED_ALONE = 3
local MOST_HELD = { [ANY] = math.huge, [FEW] = 4, [NONE] = 1 }
local FIRST_BELLS_MAX = 64

function rules.create()
  job.seen_s, job.alive_s, job.claimed_s = now_s, now_s, now_s
  job.bells = math.min(job.ready, FIRST_BELLS_MAX)
  rules._event('created', nil, { items = job.items, chunks = job.chunks })
  rules._weigh()
end

function rules.claim(worker, token)
  if job.state ~= 'open' then
    return 'closed'
  end
  rules._arrive()
  local company = books.company(worker.holder)
  if company.held >= MOST_HELD[company.among] then
    return 'alone'
  end
  local may_be = ANY
  for among = ANY, NONE do
    may_be = company.held < MOST_HELD[among] and among or may_be
  end
  local chunk = books.first_ready(may_be)
  if not chunk then
    return job.ready > 0 and 'alone' or 'empty'
  end
  rules._join(company)
  chunk.alone = company.held == 0
  chunk.token, chunk.node, chunk.holder = token, worker.node, worker.holder
  chunk.attempt = chunk.attempt + 1
  chunk.progressed, chunk.before_loss = false, nil
  chunk.claimed_items = spans.count(chunk.items)
  chunk.since_s, chunk.until_s = now_s, now_s + job.terms.lease_s
  rules._move(chunk, RUNNING)
  job.attempts = job.attempts + 1
  job.claimed_s, job.ring_wait_s = now_s, 1
  rules._event('claimed', chunk, { attempt = chunk.attempt, holder = worker.holder })
  return {
    chunk_id = chunk.id, epoch = job.epoch, items = chunk.items, patient = chunk.patient,
    token = token, attempt = chunk.attempt, lease_s = job.terms.lease_s,
  }
end

function rules.beat(beats, draining)
  rules._arrive()
  local answers = {}
  for at, beat in ipairs(beats) do
    answers[at] = rules._beat(beat, draining)
  end
  rules._weigh()
  if job.state ~= 'open' then
    for at = 1, #answers do
      answers[at] = 'stop'
    end
  end
  return answers
end

function rules.submit(chunk_id, token, epoch, settled, deferred, error)
  rules._arrive()
  local chunk = books.chunk(chunk_id)
  if epoch ~= job.epoch or not chunk or rules._is_final(chunk) then
    job.stale = job.stale + 1
    return epoch ~= job.epoch and 'stale' or 'dup'
  end
  if error then
    return rules._fail(chunk, token, settled, error)
  end
  local left_out = spans.minus(spans.minus(chunk.items, settled.items), deferred)
  if #left_out > 0 or (chunk.patient and #deferred > 0) then
    job.stale = job.stale + 1
    return 'incomplete'
  end
  rules._take(chunk, settled)
  if rules._holds(chunk, token) and chunk.claimed_items > 0 then
    local spent = (now_s - chunk.since_s) / chunk.claimed_items
    local kept = {}
    for at = math.max(1, #job.item_s - SAMPLES_KEPT + 2), #job.item_s do
      kept[#kept + 1] = job.item_s[at]
    end
    kept[#kept + 1] = spent
    job.item_s = kept
  end
  rules._defer(chunk)
  rules._finish(chunk)
  rules._weigh()
  return job.state == 'open' and 'ok' or 'closed'
end

function rules.release(chunk_id, token, settled)
  rules._arrive()
  local chunk = books.chunk(chunk_id)
  if not chunk or not rules._holds(chunk, token) then
    job.stale = job.stale + 1
    return 'stop'
  end
  rules._take(chunk, settled)
  chunk.excused = chunk.excused + 1
  rules._back(chunk, 'released')
  rules._weigh()
  return 'ok'
end

-- one step's parts

function rules._beat(beat, draining)
  local chunk = books.chunk(beat.chunk_id)
  if not chunk or chunk.token ~= beat.token or rules._is_final(chunk) then
    job.stale = job.stale + 1
    return 'stop'
  end
  if chunk.state == READY and not rules._take_back(chunk) then
    job.stale = job.stale + 1
    return 'stop'
  end
  rules._take(chunk, beat.settled)
  if now_s - chunk.since_s > job.terms.attempt_hard_s then
    chunk.token = nil
    rules._lose(chunk, { blame = not chunk.progressed, excuse = chunk.progressed })
    return 'stop'
  end
  chunk.until_s = now_s + job.terms.lease_s
  books.put(chunk)
  return draining and 'drain' or 'ok'
end

function rules._join(company)
  if company.alone_id then
    local other = rules._line(company.alone_id)
    other.alone = false
    books.put(other)
  end
end

function rules._take_back(chunk)
  if not chunk.before_loss or job.state ~= 'open' then
    return false
  end
  chunk.blamed, chunk.suspect, chunk.excused = unpack(chunk.before_loss)
  local company = books.company(chunk.holder)
  if company.held >= MOST_HELD[math.max(company.among, books.among(chunk))] then
    return false
  end
  rules._join(company)
  chunk.before_loss = nil
  chunk.alone = false
  chunk.until_s = now_s + job.terms.lease_s
  rules._move(chunk, RUNNING)
  rules._event('taken_back', chunk)
  return true
end

function rules._take(chunk, settled)
  local fresh = spans.common(settled.items, chunk.items)
  if #fresh == 0 then
    return
  end
  chunk.items = spans.minus(chunk.items, fresh)
  chunk.progressed = true
  job.checked = job.checked + spans.count(fresh)
  local working = spans.count(spans.common(settled.working, fresh))
  job.working = job.working + working
  if working > 0 and not job.first_working_s then
    job.first_working_s = now_s
  end
  job.parts = job.parts + 1
  books.add_part({ chunk_id = chunk.id, items = fresh, body = settled.body })
  rules._event('settled', chunk, { items = spans.count(fresh), working = working })
end

function rules._defer(chunk)
  if #chunk.items == 0 then
    return
  end
  rules._add({
    items = chunk.items, place = chunk.items[1] + PATIENT_PLACE, patient = true,
    parent = chunk.id,
  })
  chunk.items = {}
end

function rules._fail(chunk, token, settled, error)
  if not rules._holds(chunk, token) then
    job.stale = job.stale + 1
    return 'late'
  end
  rules._take(chunk, settled)
  chunk.errors = chunk.errors + 1
  if #chunk.items > 0 and chunk.errors >= job.terms.errors_max then
    rules._give_up(chunk, FAILED, 'error', error)
  else
    rules._back(chunk, 'failed')
  end
  rules._weigh()
  return job.state == 'open' and 'again' or 'closed'
end

function rules._lose(chunk, loss)
  local terms = job.terms
  chunk.before_loss = { chunk.blamed, chunk.suspect, chunk.excused }
  chunk.blamed = chunk.blamed + (loss.blame and 1 or 0)
  chunk.excused = chunk.excused + (loss.excuse and 1 or 0)
  chunk.shared = chunk.shared + (loss.shared and 1 or 0)
  chunk.suspect = chunk.suspect or loss.blame or false
  if loss.shared and chunk.shared >= SHARED_ALONE then
    chunk.suspect = true
  end
  job.rescued = job.rescued + 1
  if #chunk.items == 0 then
    rules._finish(chunk)
  elseif chunk.blamed >= terms.blames_max and spans.count(chunk.items) == 1 then
    rules._accuse(chunk)
  elseif chunk.blamed >= terms.blames_max then
    rules._split(chunk)
  elseif chunk.attempt - chunk.excused >= terms.attempts_max then
    rules._give_up(chunk, FAILED, 'error', 'too many attempts')
  else
    rules._back(chunk, 'rescued')
  end
end

function rules._accuse(chunk)
  local terms = job.terms
  if chunk.blamed >= terms.blames_max + LAST_TRIES then
    rules._give_up(chunk, LOST, 'poison', 'killed its worker')
  elseif chunk.attempt - chunk.excused >= terms.attempts_max + LAST_TRIES then
    rules._give_up(chunk, FAILED, 'error', 'too many attempts')
  else
    chunk.place = chunk.items[1] + LAST_PLACE
    rules._back(chunk, 'rescued')
  end
end

function rules._split(chunk)
  local cut = spans.parts(chunk.items, job.terms.fan)
  for _, part in ipairs(cut) do
    rules._add({
      items = part, place = part[1] + RETRY_PLACE, patient = chunk.patient, parent = chunk.id,
      blamed = job.terms.blames_max - 1, suspect = true,
    })
  end
  job.split = job.split + 1
  job.bells = job.bells + #cut
  chunk.items = {}
  job.chunks = job.chunks - 1
  rules._move(chunk, SPLIT)
  rules._event('split', chunk, { parts = #cut })
end

function rules._back(chunk, kind)
  if #chunk.items == 0 then
    rules._finish(chunk)
    return
  end
  if chunk.place < LAST_PLACE then
    chunk.place = chunk.items[1] + RETRY_PLACE
  end
  if kind ~= 'rescued' then
    chunk.before_loss = nil
  end
  job.bells = job.bells + 1
  rules._move(chunk, READY)
  rules._event(kind, chunk, { attempt = chunk.attempt, holder = chunk.holder })
end
