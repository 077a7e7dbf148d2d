-- What every rule does to the books: refresh/bookkeeping.py, function by function.

local FINAL = { [DONE] = true, [FAILED] = true, [LOST] = true, [SPLIT] = true }
local PAUSE_SHARE = 0.75
local PEAK_WINDOW_S = 60
local INSTANTS = {
  'created_s', 'deadline_s', 'cap_s', 'alive_s', 'claimed_s', 'rung_s', 'peak_since_s',
  'first_working_s', 'usable_s', 'closed_s', 'finalised_s', 'fin_until_s',
}

local rules = {}

function rules._add(line)
  line.id = job.next_chunk
  line.state = READY
  job.next_chunk = job.next_chunk + 1
  job.chunks = job.chunks + 1
  job.ready = job.ready + 1
  books.put(setmetatable(line, FRESH))
end

function rules._finish(chunk)
  job.chunks_done = job.chunks_done + 1
  rules._move(chunk, DONE)
  rules._event('done', chunk)
end

function rules._give_up(chunk, state, why, detail)
  local items = spans.count(chunk.items)
  job.given_up[why] = (job.given_up[why] or 0) + items
  job.chunks_given_up = job.chunks_given_up + 1
  chunk.why = why
  rules._move(chunk, state)
  local first = chunk.items[1]
  rules._event('given_up', chunk, { why = why, detail = detail, items = items, item = first })
end

function rules._weigh()
  if job.state ~= 'open' then
    return
  end
  if not job.usable_s and job.working >= job.terms.min_count then
    job.usable_s = now_s
    rules._event('usable', nil, { working = job.working })
  end
  local open = job.ready + job.running
  if open > 0 and job.terms.want and job.working >= job.terms.want then
    rules._end('enough', 'enough', nil)
  elseif open == 0 then
    rules._close()
  end
end

function rules._end(items_why, why, detail)
  local chunks, items = books.open_chunks()
  books.end_all(items_why)
  job.given_up[items_why] = (job.given_up[items_why] or 0) + items
  job.chunks_given_up = job.chunks_given_up + chunks
  job.ready, job.running = 0, 0
  job.why, job.detail = why, detail
  rules._close()
end

function rules._close()
  job.state, job.closed_s = 'closed', now_s
  rules._event('closed', nil, { why = job.why or '' })
end

-- Redis' clock goes on over restarts, so there is no change of `boot` here.
function rules._arrive()
  local away_s = now_s - job.seen_s
  if job.state == 'open' and away_s > job.terms.lease_s * PAUSE_SHARE then
    books.renew_all(now_s + job.terms.lease_s)
    if away_s > job.terms.stalled_s then
      rules._skip(away_s)
    else
      job.alive_s = job.alive_s + away_s
    end
  elseif job.state ~= 'done' and away_s < -job.terms.lease_s then
    books.renew_all(now_s + job.terms.lease_s)
    rules._skip(away_s)
  end
  job.seen_s = now_s
end

function rules._skip(moved_s)
  for _, name in ipairs(INSTANTS) do
    if job[name] then
      job[name] = job[name] + moved_s
    end
  end
end

function rules._is_final(chunk)
  return FINAL[chunk.state] or false
end

function rules._holds(chunk, token)
  return chunk.state == RUNNING and chunk.token == token
end

function rules._line(chunk_id)
  return assert(books.chunk(chunk_id), 'the books name a chunk that they do not hold')
end

function rules._move(chunk, state)
  local function change(kind)
    return (state == kind and 1 or 0) - (chunk.state == kind and 1 or 0)
  end
  job.ready = job.ready + change(READY)
  job.running = job.running + change(RUNNING)
  chunk.state = state
  if now_s - job.peak_since_s > PEAK_WINDOW_S then
    job.peak_before, job.peak, job.peak_since_s = job.peak, 0, now_s
  end
  job.peak = math.max(job.peak, job.running)
  books.put(chunk)
end

function rules._event(kind, chunk, facts)
  job.events = job.events + 1
  books.add_event({
    seq = job.events, at_s = now_s, kind = kind, chunk_id = chunk and chunk.id,
    facts = facts or {},
  })
end
