-- Which lines of a Lua program run, how often and for how long; runs inside the sandbox: lua_lines.lua REPORT PROGRAM
local report, program = arg[1], arg[2]
local hits, costs, last, since, clock = {}, {}, nil, 0, os.clock
local source = "@" .. program
local exit, open, getinfo, sethook = os.exit, io.open, debug.getinfo, debug.sethook

local function executable()
  local text, found, number = {}, {}, 0
  for line in io.lines(program) do text[#text + 1] = line end
  local listing = io.popen("luac5.4 -l -p " .. program)
  for line in listing:lines() do
    local at, code = line:match("^%s+%d+%s+%[(%d+)%]%s+(%u+)")
    number = tonumber(at)
    if number and code ~= "VARARGPREP" and not (text[number] or ""):match("^%s*end[%s,;)]*$") then
      found[number] = true
    end
  end
  listing:close()
  return found, #text
end

local function write()
  sethook()
  local found, count = executable()
  local can, ran, spent = {}, {}, {}
  for line = 1, count do
    if found[line] then
      can[#can + 1] = tostring(line)
      if hits[line] then ran[#ran + 1] = ('"%d": %d'):format(line, hits[line]) end
    end
    if costs[line] then spent[#spent + 1] = ('"%d": %.9f'):format(line, costs[line]) end
  end
  local file = open(report, "w")
  file:write('{"executable": [', table.concat(can, ", "), '], "hits": {', table.concat(ran, ", "),
    '}, "costs": {', table.concat(spent, ", "), "}}")
  file:close()
end

os.exit = function(...)
  write()
  exit(...)
end
local chunk = assert(loadfile(program))
arg = table.move(arg, 2, #arg, 0, { [0] = program })
sethook(function(_, line)
  if getinfo(2, "S").source == source then
    local now = clock()
    if last then costs[last] = (costs[last] or 0) + now - since end
    hits[line] = (hits[line] or 0) + 1
    last, since = line, clock()
  end
end, "l")
local fine, why = pcall(chunk, table.unpack(arg))
if last then costs[last] = (costs[last] or 0) + clock() - since end
write()
if not fine then
  io.stderr:write(tostring(why), "\n")
  exit(1)
end
