-- The steps of the port `Ledger` (refresh/ports.py): read what was asked, let one rule run, write
-- back, answer. KEYS: the names above, then the step's own, then the test's clock if there is one.
-- ARGV: the step, its facts as msgpack, whether there is such a clock, then bodies as they are.

local STAGE = { 'items', 'cuts', 'chunk', 'ready' }
local STAGED_KEPT_S = 3600
local NODE_KEPT_S = 3600

local asked = cmsgpack.unpack(ARGV[2])

local function body(number)
  return ARGV[3 + number] or ''
end

local function settled(items, working, number)
  return { items = items, working = working, body = body(number) }
end

local function nodes_at_home()
  local found = {}
  local rows = redis.call('HGETALL', KEY.nodes)
  for at = 1, #rows, 2 do
    found[rows[at]] = cmsgpack.unpack(rows[at + 1])
  end
  return found
end

local function alive(job_id)
  local found, size = {}, 0
  for name, node in pairs(nodes_at_home()) do
    if node.until_s > now_s and (node.job_id == '' or node.job_id == job_id) then
      found[name] = true
      size = size + 1
    end
  end
  return found, size
end

local steps = {} -- change the books
local looks = {} -- change nothing
local others = {} -- need no job

function steps.claim()
  local worker = { node = asked[1], holder = asked[2] }
  local answer = rules.claim(worker, asked[3])
  return type(answer) == 'string' and answer or { cmsgpack.pack(answer) }
end

function steps.beat()
  local raw = redis.call('HGET', KEY.nodes, asked[1])
  local draining = raw and cmsgpack.unpack(raw).draining
  local beats = {}
  for at, told in ipairs(asked[2]) do
    beats[at] = { chunk_id = told[1], token = told[2], settled = settled(told[3], told[4], at) }
  end
  return rules.beat(beats, draining)
end

function steps.submit()
  local chunk_id, token, epoch, items, working, deferred, error = unpack(asked, 1, 7)
  return rules.submit(chunk_id, token, epoch, settled(items, working, 1), deferred, error)
end

function steps.release()
  local chunk_id, token, items, working = unpack(asked)
  return rules.release(chunk_id, token, settled(items, working, 1))
end

function steps.tick()
  if books.torn() then
    return redis.error_reply('TORN keys are missing')
  end
  local nodes, size = alive(job.job_id)
  local ring = rules.tick(nodes)
  local renewed_ago_s = now_s - job.renewed_s
  if renewed_ago_s > RENEWED_S or renewed_ago_s < 0 then
    books.renew_keys()
  end
  return { books.packed_line(), had_terms, ring, size, rules.stalled() and 1 or 0 }
end

function steps.expire()
  return rules.expire(asked[1], (alive(job.job_id)))
end

function steps.cancel()
  return rules.cancel(unpack(asked, 1, 3)) and 1 or 0
end

function steps.fin_claim()
  return rules.fin_claim(asked[1])
end

function steps.fin_beat()
  return rules.fin_beat(asked[1])
end

function steps.fin_fail()
  return rules.fin_fail(asked[1], asked[2])
end

function steps.fin_commit()
  local answer = rules.fin_commit(asked[1])
  if answer == 'ok' then
    redis.call('HSET', KEY.job, 'summary', body(1))
  end
  return answer
end

function looks.status()
  return redis.call('HMGET', KEY.job, 'line', 'terms')
end

function looks.spec()
  return redis.call('HGET', KEY.job, 'spec')
end

function looks.summary()
  return redis.call('HGET', KEY.job, 'summary')
end

function others.nodes()
  local names = {}
  for name in pairs((alive(asked[1]))) do
    names[#names + 1] = name
  end
  return names
end

-- Blocks from the one that holds the first item to the one that holds the last.
function looks.blocks()
  local first = redis.call('ZREVRANGEBYSCORE', KEY.cuts, asked[1], '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local from = first[2] or asked[1]
  local cuts = redis.call('ZRANGEBYSCORE', KEY.cuts, from, '(' .. asked[2], 'WITHSCORES')
  local found = {}
  for at = 1, #cuts, 2 do
    local lo = cuts[at + 1]
    found[#found + 1] = { lo, cuts[at], redis.call('HGET', KEY.items, lo) }
  end
  return found
end

function looks.leases()
  local found = {}
  for at, chunk_id in ipairs(redis.call('ZRANGE', KEY.lease, 0, -1)) do
    local chunk = books.chunk(chunk_id)
    found[at] = { chunk.id, chunk.token or '', chunk.node, chunk.holder }
  end
  return found
end

function looks.parts()
  local after, limit = asked[1], asked[2]
  return redis.call('LRANGE', KEY.out, 2 * after, 2 * (after + limit) - 1)
end

function looks.events()
  return redis.call('XRANGE', KEY.ev, asked[1] + 1, '+', 'COUNT', asked[2])
end

-- Past keeping: all of it, or everything but the line.
function looks.drop()
  local first = 1
  if asked[1] then
    redis.call('ZREM', KEY.jobs, job.job_id)
    redis.call('ZREM', KEY.open, job.job_id)
  else
    first = 2
  end
  for at = first, OF_A_JOB do
    redis.call('UNLINK', KEYS[at])
  end
end

-- Items and their chunks, some at a time, where nobody looks for them yet.
function others.stage()
  local first = #NAMES
  local key = {}
  for at, name in ipairs(STAGE) do
    key[name] = KEYS[first + at]
  end
  for at, block in ipairs(asked) do
    local lo, hi, chunk_id, items = unpack(block, 1, 4)
    redis.call('HSET', key.items, lo, body(at))
    redis.call('ZADD', key.cuts, lo, hi)
    if chunk_id then
      local chunk = { id = chunk_id, state = READY, items = items, place = lo }
      redis.call('HSET', key.chunk, chunk_id, cmsgpack.pack(chunk))
      redis.call('ZADD', key.ready, lo, chunk_id)
    end
  end
  for _, name in ipairs(STAGE) do
    redis.call('EXPIRE', key[name], STAGED_KEPT_S)
  end
end

function others.drop_stage()
  for at = 1, #STAGE do
    redis.call('UNLINK', KEYS[#NAMES + at])
  end
end

-- Make the job exist: the stage takes the place of what was there, in one step.
function others.create()
  local age_s, created_at_s, blocks = unpack(asked)
  books.take_line(body(1), body(2))
  local version, epoch = unpack(redis.call('HMGET', KEY.job, 'version', 'epoch'))
  if version and tonumber(version) ~= VERSION then
    others.drop_stage()
    return redis.error_reply('OTHERVERSION ' .. version .. ' ' .. VERSION)
  end
  if epoch and tonumber(epoch) >= job.epoch then
    others.drop_stage()
    return 0
  end
  local staged = #NAMES
  if redis.call('ZCARD', KEYS[staged + 2]) ~= blocks
    or redis.call('HLEN', KEYS[staged + 3]) ~= job.chunks then
    others.drop_stage()
    return redis.error_reply('STAGELOST a stage is gone')
  end
  for at = 1, OF_A_JOB do
    redis.call('UNLINK', KEYS[at])
  end
  for at, name in ipairs(STAGE) do
    if redis.call('EXISTS', KEYS[staged + at]) == 1 then
      redis.call('RENAME', KEYS[staged + at], KEY[name])
    end
  end
  job.created_s = now_s - age_s
  job.deadline_s = job.created_s + math.min(job.terms.floor_s, job.terms.cap_s)
  job.cap_s = job.created_s + job.terms.cap_s
  job.peak_since_s, job.blocks = now_s, blocks
  redis.call('HSET', KEY.job, 'version', VERSION, 'terms', body(2), 'spec', body(3))
  redis.call('ZADD', KEY.jobs, created_at_s, job.job_id)
  redis.call('ZADD', KEY.open, created_at_s, job.job_id)
  rules.create()
  books.renew_keys()
  books.save()
  return 1
end

-- A write that leaves nothing behind.
function others.probe()
  redis.call('HSET', KEY.nodes, '', '')
  redis.call('HDEL', KEY.nodes, '')
end

function others.node_beat()
  local name, job_id, term_s, draining = unpack(asked)
  for other, node in pairs(nodes_at_home()) do
    if node.until_s < now_s - NODE_KEPT_S then
      redis.call('HDEL', KEY.nodes, other)
    end
  end
  local node = { job_id = job_id, until_s = now_s + term_s, draining = draining }
  redis.call('HSET', KEY.nodes, name, cmsgpack.pack(node))
  redis.call('EXPIRE', KEY.nodes, DAY_S)
end

function others.node_gone()
  redis.call('HDEL', KEY.nodes, asked[1])
end

function others.names()
  return redis.call('ZREVRANGE', asked[1] and KEY.open or KEY.jobs, 0, -1)
end

-- The lines of several jobs, each with its version; what is not there is left out.
function others.lines()
  local found = {}
  for at = 1, asked[1] do
    local line = redis.call('HMGET', KEYS[#NAMES + at], 'version', 'line', 'terms')
    found[at] = line[1] and line or 0
  end
  return { cmsgpack.pack(now_s), found }
end

-- A job whose keys have expired is taken out of the lists.
function others.forget()
  if redis.call('EXISTS', KEY.job) == 0 then
    redis.call('ZREM', KEY.jobs, asked[1])
    redis.call('ZREM', KEY.open, asked[1])
  end
end

local step = ARGV[1]
local trouble = books.strange_key()
if not trouble and not others[step] then
  trouble = books.open()
end
if trouble then
  return redis.error_reply(trouble)
end
local answer = (steps[step] or looks[step] or others[step])()
if steps[step] then
  books.save()
end
return answer
