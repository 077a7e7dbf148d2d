-- How long a refresh job may take: refresh/deadline.py, function by function. The order of the
-- operations is the same as there, so that both get the same double.

local deadline = {}

local SAMPLES_MIN = 5
local SAMPLES_KEPT = 64
local ALLOWANCE = 1.5

function deadline.chunk_p95_s(speed, prior_s)
  if #speed.item_s < SAMPLES_MIN then
    return prior_s
  end
  local ranked = {}
  for at = 1, #speed.item_s do
    ranked[at] = speed.item_s[at]
  end
  table.sort(ranked)
  return ranked[math.ceil(0.95 * #ranked)] * speed.chunk_size
end

function deadline.adaptive_s(elapsed_s, speed, prior_s, recovery_s)
  local rounds = math.ceil(speed.open_chunks / math.max(1, speed.at_once))
  return elapsed_s + ALLOWANCE * rounds * deadline.chunk_p95_s(speed, prior_s) + recovery_s
end

function deadline.in_force_s(before_s, floor_s, adaptive_s, cap_s)
  return math.min(math.max(floor_s, adaptive_s, before_s), cap_s)
end
