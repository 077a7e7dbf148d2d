-- The rest of the rules, rescue to finalisation: refresh/closing.py, function by function.

local REAPED_MAX = 250
local TICK_S = 0.5
local FIN_LEASE_S = 5
local FIN_ATTEMPTS = 3
local RING_AGAIN_MAX_S = 30

function rules.tick(alive)
  rules._arrive()
  if job.state ~= 'open' then
    return 0
  end
  if next(alive) then
    job.alive_s = now_s
  end
  rules._reap(books.overdue(now_s, REAPED_MAX), alive)
  rules._bound()
  rules._weigh()
  return rules._bells()
end

function rules.expire(held, alive)
  rules._arrive()
  if job.state ~= 'open' then
    return 0
  end
  local lost, seen = {}, {}
  for _, claimed in ipairs(held) do
    local line = not seen[claimed[1]] and books.chunk(claimed[1])
    if line and rules._holds(line, claimed[2]) then
      seen[claimed[1]] = true
      lost[#lost + 1] = line
    end
  end
  rules._reap(lost, alive)
  rules._weigh()
  return #lost
end

function rules.cancel(items_why, why, detail)
  rules._arrive()
  if job.state ~= 'open' then
    return false
  end
  rules._end(items_why, why, detail)
  return true
end

function rules.stalled()
  local silent_s = now_s - job.alive_s
  return job.ready > 0 and job.running == 0 and silent_s > job.terms.stalled_s
end

function rules.fin_claim(token)
  rules._arrive()
  if job.state == 'done' then
    return 'dup'
  end
  if job.state == 'open' then
    return 'wait'
  end
  if job.state == 'finalising' and job.fin_token ~= token then
    if now_s < job.fin_until_s then
      return 'wait'
    end
    if rules._fin_failed('the process that wrote the pool died') then
      return 'dup'
    end
  end
  job.state, job.fin_token = 'finalising', token
  job.fin_until_s = now_s + FIN_LEASE_S
  return 'ok'
end

function rules.fin_beat(token)
  local answer = rules._fin_holder(token)
  if answer == 'ok' then
    job.fin_until_s = now_s + FIN_LEASE_S
  end
  return answer
end

function rules.fin_fail(token, error)
  local answer = rules._fin_holder(token)
  if answer == 'ok' then
    rules._fin_failed(error)
  end
  return answer
end

function rules.fin_commit(token)
  local answer = rules._fin_holder(token)
  if answer == 'ok' then
    rules._fin_done()
  end
  return answer
end

-- one step's parts

function rules._fin_holder(token)
  rules._arrive()
  if job.state == 'done' then
    return 'dup'
  end
  local current = job.state == 'finalising' and job.fin_token == token
  return current and 'ok' or 'fenced'
end

function rules._fin_failed(error)
  job.fin_fails = job.fin_fails + 1
  if job.fin_fails < FIN_ATTEMPTS then
    job.state, job.fin_token = 'closed', nil
    return false
  end
  job.fin_error = error
  rules._fin_done()
  return true
end

function rules._fin_done()
  job.state, job.fin_token = 'done', nil
  job.finalised_s = now_s
  rules._event('final', nil, { error = job.fin_error or '' })
end

function rules._reap(lost, alive)
  local lost_on = {}
  for _, chunk in ipairs(lost) do
    lost_on[chunk.node] = (lost_on[chunk.node] or 0) + 1
  end
  for _, chunk in ipairs(lost) do
    if not alive[chunk.node] then
      rules._lose(chunk, { excuse = true })
    elseif chunk.alone and lost_on[chunk.node] == 1 then
      rules._lose(chunk, { blame = true, excuse = chunk.progressed })
    else
      rules._lose(chunk, { shared = true, excuse = chunk.progressed })
    end
  end
end

function rules._bound()
  local elapsed_s = now_s - job.created_s
  local speed = {
    open_chunks = job.ready + job.running,
    at_once = math.max(job.peak, job.peak_before),
    item_s = job.item_s,
    chunk_size = job.terms.chunk_size,
  }
  local recovery_s = job.terms.lease_s + 2 * TICK_S
  local asked_s = deadline.adaptive_s(elapsed_s, speed, job.terms.time_per_chunk_s, recovery_s)
  local in_force_s = deadline.in_force_s(
    job.deadline_s - job.created_s, job.terms.floor_s, asked_s, job.cap_s - job.created_s
  )
  job.deadline_s = job.created_s + in_force_s
  if now_s >= job.deadline_s then
    rules._end('deadline', 'timed_out', nil)
  end
end

function rules._bells()
  local owed = job.ready > 0 and job.bells or 0
  job.bells = 0
  local quiet_s = now_s - math.max(job.claimed_s, job.rung_s)
  if owed == 0 and job.ready > 0 and quiet_s > job.ring_wait_s then
    owed = 1
    job.ring_wait_s = math.min(2 * job.ring_wait_s, RING_AGAIN_MAX_S)
  end
  if owed > 0 then
    job.rung_s = now_s
    rules._event('rung', nil, { bells = owed })
  end
  return owed
end
