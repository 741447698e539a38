-- Requests that came while nobody serves their endpoint wait here until somebody does.
-- HAProxy loads this when it starts, below a line that says what `file`, `most`, `most_of_one` and `longest` are
-- (text.py).

local routes = Map.new(file, Map._beg)

-- Who waits: endpoint, whose it is, and when it looked last.  A client that left is not said to us: it looks no more.
local waiting, last = {}, 0

local function count(by)
    local found, all, now = {}, 0, core.now().sec
    for number, one in pairs(waiting) do
        if now - one.seen > 2 then
            waiting[number] = nil
        else
            found[one[by]] = (found[one[by]] or 0) + 1
            all = all + 1
        end
    end
    return found, all
end

local function field(route, number)
    for part in (route .. "|"):gmatch("([^|]*)|") do
        number = number - 1
        if number == 0 then return part end
    end
end

local function asleep(route)
    return route ~= nil and field(route, 3):find("h", 1, true) ~= nil
end

core.register_action("hold", { "http-req" }, function(txn)
    local exact, wide = txn:get_var("txn.exact"), txn:get_var("txn.wide")
    local endpoint, holder = field(txn:get_var("txn.route"), 2), field(txn:get_var("txn.route"), 7)
    local by_holder, all = count("holder")
    if all >= most or (by_holder[holder] or 0) >= most_of_one then return end
    last = last + 1
    local number, began, route = last, core.now().sec, nil
    repeat
        waiting[number] = { endpoint = endpoint, holder = holder, seen = core.now().sec }
        core.msleep(50)
        route = routes:lookup(exact) or routes:lookup(wide)
    until not asleep(route) or core.now().sec - began >= longest
    waiting[number] = nil
    if route ~= nil then txn:set_var("txn.route", route) end
end, 0)

-- For the agent: a line for every endpoint that requests wait for, with how many.
core.register_cli({ "show", "held" }, "show held : who waits for somebody to serve", function(applet)
    for endpoint, number in pairs((count("endpoint"))) do
        applet:send(endpoint .. " " .. number .. "\n")
    end
end)
