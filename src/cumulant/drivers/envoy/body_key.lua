-- Finds the value of one request column in a JSON body, without building tables from it, and puts it into the
-- header `cumulant-key`. Fits: {"rows": [{...}]}, [{...}], {...}, {"inputs": [{"name": .., "data": [..]}]}.
-- A value is compared as it is written: "a", without its quotes; 7. Anything unexpected: no key.

local MOST = 4194304 -- longer bodies are not looked at
local LONGEST = 512

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

-- Calls visit(name, begin of value) for each member; a result ends the walk.
local function members(s, at, visit)
  at = space(s, at + 1)
  while s:byte(at) == 34 do
    local stop = after_string(s, at)
    if not stop then return nil end
    local name = s:sub(at + 1, stop - 2)
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

local function datum(s, at) -- the first scalar, however deep in lists
  while s:byte(at) == 91 do at = space(s, at + 1) end
  local byte = s:byte(at)
  if not byte or byte == 123 or byte == 93 then return false end
  local stop = after_value(s, at)
  if not stop then return false end
  if byte == 34 then return s:sub(at + 1, stop - 2) end
  local text = s:sub(at, stop - 1)
  return text ~= "null" and text
end

local function of_row(s, at, keys)
  if s:byte(at) ~= 123 then return false end
  return members(s, at, function(name, where)
    if keys[name] then return datum(s, where) end
  end)
end

local function of_tensors(s, at, keys)
  if s:byte(at) ~= 91 then return false end
  at = space(s, at + 1)
  while s:byte(at) == 123 do
    local named, data
    members(s, at, function(name, where)
      if name == "name" then named = datum(s, where) end
      if name == "data" then data = where end
    end)
    if named and keys[named] then return data and datum(s, data) end
    at = after_value(s, at)
    if not at then return false end
    at = space(s, at)
    if s:byte(at) ~= 44 then return false end
    at = space(s, at + 1)
  end
  return false
end

local function first(s, at)
  return s:byte(at) == 91 and space(s, at + 1) or at
end

local function find(s, keys)
  local at = space(s, 1)
  if s:byte(at) == 91 then return of_row(s, first(s, at), keys) end
  local found = of_row(s, at, keys)
  if found ~= nil then return found end
  return members(s, at, function(name, where)
    if name == "inputs" then return of_tensors(s, where, keys) end
    if name == "rows" then return of_row(s, first(s, where), keys) end
  end)
end

-- A header holds printable text only: no value of a caller can end its line.
local function plain(text)
  return (text:gsub("[^\33-\36\38-\126]", function(c) return string.format("%%%02X", c:byte()) end)):sub(1, LONGEST)
end

function envoy_on_request(handle)
  local told = handle:metadata()
  local key, escaped = told:get("key"), told:get("escaped")
  local headers = handle:headers()
  if not key or headers:get("cumulant-key") then return end
  local length = headers:get("content-length") -- of a GET there is none, and tonumber wants an argument
  if (tonumber(length or "") or MOST + 1) > MOST then return end
  local body = handle:body()
  if not body or body:length() == 0 then return end
  local found = find(body:getBytes(0, body:length()), {[key] = true, [escaped] = true})
  if found and found ~= "" then
    handle:headers():replace("cumulant-key", plain(found)) -- the object from before the body is not valid any more
    handle:clearRouteCache()
  end
end
