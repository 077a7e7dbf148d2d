-- Sets of item numbers as sorted ranges: refresh/spans.py, function by function.
-- Flat and half-open: lo, hi, lo, hi, ... Nothing here changes what it is given.

local spans = {}

function spans.count(given)
  local total = 0
  for at = 1, #given, 2 do
    total = total + given[at + 1] - given[at]
  end
  return total
end

local function joined(flat)
  local out = {}
  for at = 1, #flat, 2 do
    if #out > 0 and out[#out] == flat[at] then
      out[#out] = flat[at + 1]
    else
      out[#out + 1] = flat[at]
      out[#out + 1] = flat[at + 1]
    end
  end
  return out
end

function spans.common(left, right)
  local flat = {}
  local at_left, at_right = 1, 1
  while at_left < #left and at_right < #right do
    local lo = math.max(left[at_left], right[at_right])
    local hi = math.min(left[at_left + 1], right[at_right + 1])
    if lo < hi then
      flat[#flat + 1] = lo
      flat[#flat + 1] = hi
    end
    if left[at_left + 1] <= right[at_right + 1] then
      at_left = at_left + 2
    else
      at_right = at_right + 2
    end
  end
  return joined(flat)
end

function spans.minus(left, right)
  if #left == 0 or #right == 0 then
    return left
  end
  local gaps = { math.min(left[1], right[1]) - 1 }
  for at = 1, #right do
    gaps[#gaps + 1] = right[at]
  end
  gaps[#gaps + 1] = math.max(left[#left], right[#right]) + 1
  return spans.common(left, gaps)
end

function spans.parts(given, fan)
  local total = spans.count(given)
  local made = math.min(fan, total)
  local cut = {}
  local at, lo = 1, given[1]
  for k = 0, made - 1 do
    local size = math.floor(total * (k + 1) / made) - math.floor(total * k / made)
    local part = {}
    while size > 0 do
      local hi = given[at + 1]
      local taken = math.min(size, hi - lo)
      part[#part + 1] = lo
      part[#part + 1] = lo + taken
      size = size - taken
      lo = lo + taken
      if lo == hi then
        at = at + 2
        lo = given[at]
      end
    end
    cut[#cut + 1] = part
  end
  return cut
end
