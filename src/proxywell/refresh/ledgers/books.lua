-- The lines of one job as keys: what refresh/books.py calls Books, and how a step opens and
-- closes them. Rows are msgpack, whose doubles are exact; Lua's own figures have 14 digits.
--
-- A lease's end is a score in `lease` and a ready chunk's place one in `ready` or `suspects`,
-- where those that are held alone come ALONE_AT behind those that are held among few; two open
-- chunks never share an item, so no two of them have one place. What one holder holds is counted
-- in `held`. Ending all open chunks writes one word into the job's line, `ended`, and
-- every row that was open then reads as lost: 10 000 rows are not rewritten in one step.
-- VERSION is written above by redis.py.

local READY, RUNNING, DONE, FAILED, LOST, SPLIT = 0, 1, 2, 3, 4, 5
local ANY, FEW, NONE = 0, 1, 2 -- among how many others a chunk may be held
local SHARED_FEW = 2
local ALONE_AT = 17592186044416 -- 1 << 44: behind every place there is
local DAY_S = 86400
local UNCOLLECTED_KEPT_S = 7 * DAY_S
local BODIES_KEPT_S = 3600
local LINE_KEPT_S = 30 * DAY_S
local RENEWED_S = 60 -- how often a tick puts off the keys' expiry
local AT_ONCE = 500 -- arguments of one command, far below what Lua's stack holds
local EVENTS_KEPT = 10000

local NAMES = {
  'job', 'items', 'cuts', 'chunk', 'ready', 'suspects', 'lease', 'held', 'out', 'ev',
  'open', 'jobs', 'nodes',
}
local TYPES = {
  job = 'hash', items = 'hash', cuts = 'zset', chunk = 'hash', ready = 'zset',
  suspects = 'zset', lease = 'zset', held = 'hash', out = 'list', ev = 'stream',
  open = 'zset', jobs = 'zset', nodes = 'hash',
}
local OF_A_JOB = 10 -- the first names; the others are the home's

local KEY = {}
for at, name in ipairs(NAMES) do
  KEY[name] = KEYS[at]
end

local function time_s()
  if ARGV[3] ~= '' then
    return tonumber(redis.call('GET', KEYS[#KEYS]))
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local now_s = time_s()
local job = nil -- the line of the job whose books are open
local state_before, had_terms = nil, nil
local before = setmetatable({}, { __mode = 'k' }) -- chunk -> how the books have it

local FRESH = {
  __index = {
    patient = false, attempt = 0, excused = 0, blamed = 0, errors = 0, suspect = false,
    alone = false, progressed = false, node = '', holder = '', claimed_items = 0, since_s = 0,
    until_s = 0, items = {}, shared = 0,
  },
}
local NEW_LINE = {
  __index = {
    boot = '', epoch = 1, state = 'open', checked = 0, working = 0, ready = 0, running = 0,
    chunks = 0, chunks_done = 0, chunks_given_up = 0, rescued = 0, split = 0, attempts = 0,
    stale = 0, next_chunk = 0, parts = 0, events = 0, seen_s = 0, alive_s = 0, claimed_s = 0,
    rung_s = 0, ring_wait_s = 1, bells = 0, peak = 0, peak_before = 0, peak_since_s = 0,
    item_s = {}, fin_until_s = 0, fin_fails = 0, renewed_s = 0,
  },
}

local books = {}

-- Keys of another type were put there by somebody else; find out before anything is changed.
function books.strange_key()
  for at, name in ipairs(NAMES) do
    local found = redis.call('TYPE', KEYS[at])
    found = found.ok or found
    if found ~= 'none' and found ~= TYPES[name] then
      return 'STRANGEKEY ' .. KEYS[at] .. ' ' .. found .. ' ' .. TYPES[name]
    end
  end
end

function books.take_line(packed, terms)
  job = setmetatable(cmsgpack.unpack(packed), NEW_LINE)
  job.terms = cmsgpack.unpack(terms)
  job.given_up = job.given_up or {}
  state_before = job.state
end

-- Open the books; what stands in the way, as the first word of an error.
function books.open()
  local found = redis.call('HMGET', KEY.job, 'version', 'line', 'terms')
  if not found[1] then
    return 'NOJOB there is no such job'
  end
  if tonumber(found[1]) ~= VERSION then
    return 'OTHERVERSION ' .. found[1] .. ' ' .. VERSION
  end
  had_terms = found[3]
  books.take_line(found[2], found[3])
end

-- Keys may be deleted one by one. What is then left can never add up, and is no job any more.
function books.torn()
  if job.state == 'done' then
    return false
  end
  local function differ(command, name, wanted)
    return redis.call(command, KEY[name]) ~= wanted
  end
  if differ('HLEN', 'chunk', job.next_chunk) or differ('LLEN', 'out', 2 * job.parts)
    or differ('HLEN', 'items', job.blocks) or differ('ZCARD', 'cuts', job.blocks) then
    return true
  end
  local ready = redis.call('ZCARD', KEY.ready) + redis.call('ZCARD', KEY.suspects)
  local held = redis.call('HLEN', KEY.held) > 0
  return ready ~= job.ready or differ('ZCARD', 'lease', job.running) or held ~= (job.running > 0)
end

function books.packed_line()
  local terms, given_up = job.terms, job.given_up
  job.terms = nil
  if next(given_up) == nil then
    job.given_up = nil
  end
  local packed = cmsgpack.pack(job)
  job.terms, job.given_up = terms, given_up
  return packed
end

-- How long the keys of the job as it stands are kept, and its line.
local function kept_s()
  if job.state ~= 'done' then
    local left_s = math.ceil(math.max(0, job.cap_s - now_s)) + UNCOLLECTED_KEPT_S
    return left_s, left_s
  end
  return job.fin_error and UNCOLLECTED_KEPT_S or BODIES_KEPT_S, LINE_KEPT_S
end

function books.renew_keys()
  local bodies_s, line_s = kept_s()
  for at = 1, OF_A_JOB do
    redis.call('EXPIRE', KEYS[at], NAMES[at] == 'job' and line_s or bodies_s)
  end
  job.renewed_s = now_s
end

-- A key that was just made anew has no expiry yet.
local function lasting(name, size)
  if size == 0 then
    redis.call('EXPIRE', KEY[name], (kept_s()))
  end
end

-- Write the line back; who collects it and for how long it is kept follows from its state.
function books.save()
  if job.state ~= state_before then
    if job.state == 'done' then
      redis.call('ZREM', KEY.open, job.job_id)
    end
    books.renew_keys()
  end
  redis.call('HSET', KEY.job, 'line', books.packed_line(), 'epoch', job.epoch)
end

function books.among(chunk)
  if chunk.suspect then
    return NONE
  end
  return chunk.shared >= SHARED_FEW and FEW or ANY
end

local function known(chunk)
  before[chunk] = {
    state = chunk.state, holder = chunk.holder, among = books.among(chunk), alone = chunk.alone,
    id = chunk.id,
  }
  return chunk
end

local function row(raw)
  local chunk = setmetatable(cmsgpack.unpack(raw), FRESH)
  if job.ended and chunk.state <= RUNNING then
    chunk.state, chunk.why = LOST, job.ended
  end
  return chunk
end

function books.chunk(chunk_id)
  local raw = redis.call('HGET', KEY.chunk, chunk_id)
  if not raw then
    return nil
  end
  local chunk = row(raw)
  if chunk.state == RUNNING then
    chunk.until_s = tonumber(redis.call('ZSCORE', KEY.lease, chunk_id))
  end
  return known(chunk)
end

local function held_by(holder)
  local raw = redis.call('HGET', KEY.held, holder)
  return raw and cmsgpack.unpack(raw) or { held = 0, few = 0, suspects = 0 }
end

local function leave(was)
  local held = held_by(was.holder)
  held.held = held.held - 1
  held.few = held.few - (was.among == FEW and 1 or 0)
  held.suspects = held.suspects - (was.among == NONE and 1 or 0)
  if held.alone_id == was.id then
    held.alone_id = nil
  end
  if held.held <= 0 then
    redis.call('HDEL', KEY.held, was.holder)
  else
    redis.call('HSET', KEY.held, was.holder, cmsgpack.pack(held))
  end
end

local function join(chunk)
  local held = held_by(chunk.holder)
  held.held = held.held + 1
  local among = books.among(chunk)
  held.few = held.few + (among == FEW and 1 or 0)
  held.suspects = held.suspects + (among == NONE and 1 or 0)
  if chunk.alone then
    held.alone_id = chunk.id
  end
  local size = redis.call('HLEN', KEY.held)
  redis.call('HSET', KEY.held, chunk.holder, cmsgpack.pack(held))
  lasting('held', size)
end

local function stays_with_its_holder(was, chunk)
  return was.state == RUNNING and chunk.state == RUNNING and was.holder == chunk.holder
    and was.among == books.among(chunk) and was.alone == chunk.alone
end

local function add_to(name, score, chunk_id)
  local size = redis.call('ZCARD', KEY[name])
  redis.call('ZADD', KEY[name], score, chunk_id)
  lasting(name, size)
end

function books.put(chunk)
  local was = before[chunk] or { state = DONE }
  redis.call('HSET', KEY.chunk, chunk.id, cmsgpack.pack(chunk))
  if was.state == READY then
    redis.call('ZREM', was.among == ANY and KEY.ready or KEY.suspects, chunk.id)
  end
  if was.state == RUNNING and chunk.state ~= RUNNING then
    redis.call('ZREM', KEY.lease, chunk.id)
  end
  if chunk.state == READY then
    local among = books.among(chunk)
    local place = chunk.place + (among == NONE and ALONE_AT or 0)
    add_to(among == ANY and 'ready' or 'suspects', place, chunk.id)
  elseif chunk.state == RUNNING then
    add_to('lease', chunk.until_s, chunk.id)
  end
  if not stays_with_its_holder(was, chunk) then
    if was.state == RUNNING then
      leave(was)
    end
    if chunk.state == RUNNING then
      join(chunk)
    end
  end
  known(chunk)
end

function books.first_ready(among)
  local found, first
  local function look(name, from, to, behind)
    local head = redis.call(
      'ZRANGEBYSCORE', KEY[name], from, to, 'WITHSCORES', 'LIMIT', 0, 1)
    local place = head[1] and tonumber(head[2]) - behind
    if place and (not first or place < first) then
      found, first = head[1], place
    end
  end
  look('ready', '-inf', '+inf', 0)
  if among >= FEW then
    look('suspects', '-inf', '(8796093022208', 0) -- 1 << 43: half way
  end
  if among >= NONE then
    look('suspects', '8796093022208', '+inf', ALONE_AT)
  end
  return found and books.chunk(found)
end

function books.company(holder)
  local held = held_by(holder)
  local among = held.suspects > 0 and NONE or held.few > 0 and FEW or ANY
  return { held = held.held, among = among, alone_id = held.alone_id }
end

function books.overdue(now, limit)
  local late = redis.call('ZRANGEBYSCORE', KEY.lease, '-inf', now, 'LIMIT', 0, limit)
  local found = {}
  for at, chunk_id in ipairs(late) do
    found[at] = books.chunk(chunk_id)
  end
  table.sort(found, function(one, other)
    if one.until_s ~= other.until_s then
      return one.until_s < other.until_s
    end
    return one.id < other.id
  end)
  return found
end

function books.renew_all(until_s)
  local told = string.format('%.17g', until_s) -- once, and not for every lease
  local running = redis.call('ZRANGE', KEY.lease, 0, -1)
  for first = 1, #running, AT_ONCE do
    local scored = {}
    for at = first, math.min(first + AT_ONCE - 1, #running) do
      scored[#scored + 1] = told
      scored[#scored + 1] = running[at]
    end
    redis.call('ZADD', KEY.lease, unpack(scored))
  end
end

-- Every item is settled, given up or in an open chunk, so what is pending is in these.
function books.open_chunks()
  local given_up = 0
  for _, items in pairs(job.given_up) do
    given_up = given_up + items
  end
  return job.ready + job.running, job.items - job.checked - given_up
end

function books.end_all(why)
  job.ended = why
  redis.call('UNLINK', KEY.ready, KEY.suspects, KEY.lease, KEY.held)
end

-- Two entries a part: whose it is, and the verdicts, which nobody here looks into.
function books.add_part(part)
  local header = cmsgpack.pack({ part.chunk_id, part.items })
  local size = redis.call('RPUSH', KEY.out, header, part.body)
  lasting('out', size - 2)
end

function books.add_event(event)
  local told = { 'at_s', event.at_s, 'kind', event.kind }
  if event.chunk_id then
    told[#told + 1] = 'chunk'
    told[#told + 1] = event.chunk_id
  end
  if next(event.facts) then
    told[#told + 1] = 'facts'
    told[#told + 1] = cmsgpack.pack(event.facts)
  end
  redis.call('XADD', KEY.ev, 'MAXLEN', '~', EVENTS_KEPT, event.seq .. '-0', unpack(told))
end
