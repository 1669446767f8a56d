-- Finds the value of one request column in a JSON body, without building tables from it, and puts it into the
-- header `cumulant-key`, in every form of a body that a server takes. Equal values have one text: "a" and its escape
-- are a; "7", 7 and 7.0 are 7. Anything unexpected: no key.

local MOST = 4194304 -- longer bodies are not looked at
local LONGEST = 512
local WHOLE = 9007199254740992 -- numbers below it have one text
local CONTROL = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local function space(s, at)
  return s:find("[^ \t\r\n]", at) or #s + 1
end

local function after_string(s, at) -- at: the opening quote
  at = at + 1
  while true do
    local found = s:find('["\\]', at)
    if not found then return nil end
    if s:byte(found) == 34 then return found + 1 end
    at = found + 2
  end
end

local function after_value(s, at)
  local byte = s:byte(at)
  if byte == 34 then return after_string(s, at) end
  if byte ~= 123 and byte ~= 91 then return s:find("[%s,%]}]", at) or #s + 1 end
  local depth = 0
  while true do
    at = s:find('["%[%]{}]', at)
    if not at then return nil end
    byte = s:byte(at)
    if byte == 34 then
      at = after_string(s, at)
      if not at then return nil end
    else
      depth = depth + ((byte == 123 or byte == 91) and 1 or -1)
      at = at + 1
      if depth == 0 then return at end
    end
  end
end

-- Calls visit(begin of value) for each item; a result ends the walk.
local function items(s, at, visit)
  at = space(s, at + 1)
  while s:byte(at) and s:byte(at) ~= 93 do
    local result = visit(at)
    if result ~= nil then return result end
    at = after_value(s, at)
    if not at then return nil end
    at = space(s, at)
    if s:byte(at) ~= 44 then return nil end
    at = space(s, at + 1)
  end
end

local function utf8(code)
  local rest, parts = code, {}
  if code < 128 then return string.char(code) end
  local lead = code < 2048 and 192 or code < 65536 and 224 or 240
  for n = (code < 2048 and 1 or code < 65536 and 2 or 3), 1, -1 do
    parts[n] = string.char(128 + rest % 64)
    rest = math.floor(rest / 64)
  end
  return string.char(lead + rest) .. table.concat(parts)
end

local function unit(s, at) -- the four digits behind \u
  local digits = s:match("^\\u(%x%x%x%x)", at)
  return digits and tonumber(digits, 16)
end

local function unescaped(s)
  s = s:sub(1, 6 * LONGEST) -- more cannot stand in the key
  local parts, at = {}, 1
  while true do
    local slash = s:find("\\", at, true)
    if not slash then break end
    parts[#parts + 1] = s:sub(at, slash - 1)
    local high, low = unit(s, slash), unit(s, slash + 6)
    if not high then
      local letter = s:sub(slash + 1, slash + 1)
      parts[#parts + 1] = CONTROL[letter] or letter
      at = slash + 2
    elseif high >= 0xD800 and high < 0xDC00 and low and low >= 0xDC00 and low < 0xE000 then
      parts[#parts + 1] = utf8(0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00)
      at = slash + 12
    else
      parts[#parts + 1] = utf8(high)
      at = slash + 6
    end
  end
  return table.concat(parts) .. s:sub(at)
end

-- Calls visit(name, begin of value) for each member; a result ends the walk.
local function members(s, at, visit)
  at = space(s, at + 1)
  while s:byte(at) == 34 do
    local stop = after_string(s, at)
    if not stop then return nil end
    local name = unescaped(s:sub(at + 1, stop - 2))
    at = space(s, stop)
    if s:byte(at) ~= 58 then return nil end
    at = space(s, at + 1)
    local result = visit(name, at)
    if result ~= nil then return result end
    at = after_value(s, at)
    if not at then return nil end
    at = space(s, at)
    if s:byte(at) ~= 44 then return nil end
    at = space(s, at + 1)
  end
end

local function number(text)
  local value = text:find("[.eE]") and tonumber(text)
  if not value or value ~= math.floor(value) or math.abs(value) >= WHOLE then return text end
  return value == 0 and "0" or string.format("%.0f", value)
end

local function datum(s, at) -- the first scalar, however deep in lists
  while s:byte(at) == 91 do at = space(s, at + 1) end
  local byte = s:byte(at)
  if not byte or byte == 123 or byte == 93 then return false end
  local stop = after_value(s, at)
  if not stop then return false end
  if byte == 34 then return unescaped(s:sub(at + 1, stop - 2)) end
  local text = s:sub(at, stop - 1)
  return text ~= "null" and number(text)
end

local function of_row(s, at, key)
  if s:byte(at) ~= 123 then return false end
  return members(s, at, function(name, where)
    if name == key then return datum(s, where) end
  end)
end

local function first(s, at)
  return s:byte(at) == 91 and space(s, at + 1) or at
end

-- Tensors of the Open Inference Protocol, columns by name, or rows.
local function of_inputs(s, at, key)
  if s:byte(at) ~= 91 then return of_row(s, at, key) end
  local found = items(s, at, function(one)
    if s:byte(one) ~= 123 then return false end
    local name, data
    members(s, one, function(member, where)
      if member == "name" then name = datum(s, where) end
      if member == "data" then data = where end
    end)
    if name == key and data then return datum(s, data) end
  end)
  return found or of_row(s, first(s, at), key)
end

-- {"columns": ["a", ..], "data": [[1, ..], ..]}
local function of_split(s, at, key)
  if s:byte(at) ~= 123 then return false end
  local columns, data
  members(s, at, function(name, where)
    if name == "columns" then columns = where end
    if name == "data" then data = where end
  end)
  local row = data and s:byte(data) == 91 and space(s, data + 1)
  if not row or s:byte(row) ~= 91 or not columns or s:byte(columns) ~= 91 then return false end
  local place, count = nil, 0
  items(s, columns, function(where)
    count = count + 1
    if s:byte(where) == 34 and datum(s, where) == key then place = count return true end
  end)
  if not place then return false end
  count = 0
  return items(s, row, function(where)
    count = count + 1
    if count == place then return datum(s, where) end
  end)
end

local LISTS = { rows = true, dataframe_records = true, instances = true }

local function find(s, key)
  local at = space(s, 1)
  if s:byte(at) == 91 then return of_row(s, first(s, at), key) end
  local found = of_row(s, at, key)
  if found ~= nil then return found end
  return members(s, at, function(name, where)
    if LISTS[name] then return of_row(s, first(s, where), key) end
    if name == "inputs" then return of_inputs(s, where, key) end
    if name == "dataframe_split" then return of_split(s, where, key) end
  end)
end

-- A header holds printable text only: no value of a caller can end its line.
local function plain(text)
  return (text:gsub("[^\33-\36\38-\126]", function(c) return string.format("%%%02X", c:byte()) end)):sub(1, LONGEST)
end

function envoy_on_request(handle)
  local key = handle:metadata():get("key")
  local headers = handle:headers()
  if not key or headers:get("cumulant-key") then return end
  local length = headers:get("content-length") -- of a GET there is none, and tonumber wants an argument
  if (tonumber(length or "") or MOST + 1) > MOST then return end
  local body = handle:body()
  if not body or body:length() == 0 then return end
  local found = find(body:getBytes(0, body:length()), key)
  if found and found ~= "" then
    handle:headers():replace("cumulant-key", plain(found)) -- the object from before the body is not valid any more
    handle:clearRouteCache()
  end
end
