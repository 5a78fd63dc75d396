//! The scripts that run inside Valkey. Each operation is one script and therefore atomic.
//!
//! The flags decide what a full server still executes. Once `maxmemory` is reached, the server
//! rejects a script without `allow-oom` before it starts, so nothing is half written. Scripts that
//! only coordinate have `allow-oom`, because purges and claims must work when the memory is full.
//! Reads have `no-writes`.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// Reads the engine's time in milliseconds. All deadlines and ages use it.
const TIME: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
";

/// For tests, the last argument is the time.
#[cfg(test)]
const TIME_GIVEN: &str = "local now = tonumber(ARGV[#ARGV])\n";

/// Extends the life of a key to at least this many milliseconds from now. A key without an expiry
/// gets one.
const LIVE: &str = "\
local function live(key, ms)
  if redis.call('PTTL', key) < tonumber(ms) then redis.call('PEXPIRE', key, ms) end
end
";

/// The time until a deadline, which is `till` in `KEYS[1]`. A deadline that lies further ahead than
/// its length is cut to it, and the cut is stored: a clock was set back. Otherwise it would end
/// only when the clock is where it was.
const REST: &str = "\
local function rest(name, till, length)
  local left, most = tonumber(till) - now, tonumber(length)
  if left > most then
    redis.call('HSET', KEYS[1], name, now + most)
    return most
  end
  return left
end
";

/// Tells all gateways what has changed; see `store::bell`. The last argument is the channel. A user
/// without the right to publish loses the ring only, so the script goes on.
const RING: &str = "\
local function wake(what) redis.pcall('PUBLISH', ARGV[#ARGV], what) end
";

/// For tests, where the last argument is the time.
#[cfg(test)]
const RING_BEFORE_TIME: &str = "\
local function wake(what) redis.pcall('PUBLISH', ARGV[#ARGV - 1], what) end
";

/// Whether a claim on a line holds. A change under it renews it, so this comes first, and what
/// follows may still refuse the change: the claim holds all the same.
const FENCE: &str = "\
local function fence(key, claim, lease)
  if claim == '' then return true end
  if redis.call('HGET', key, 'claim') ~= claim then return false end
  redis.call('HSET', key, 'until', now + tonumber(lease), 'len', lease)
  return true
end
";

/// Reads the purse of `KEYS[1]` and counts its credit up to now, and writes it. What is not there
/// is zero. Numbers are whole, and are written as such.
const PURSE: &str = "\
local function whole(n) return string.format('%.0f', n + 0) end
local function count(burst, every)
  local h = redis.call('HMGET', KEYS[1], 'credit', 'at', 'hold', 'hold_len', 'refuses',
    'strikes', 'probe')
  local p = { credit = tonumber(h[1] or 0), hold = h[3] and tonumber(h[3]),
    len = tonumber(h[4] or 0), refuses = tonumber(h[5] or 0), strikes = tonumber(h[6] or 0),
    probe = math.min(tonumber(h[7] or 0), now + every), left = 0 }
  if p.hold then
    p.left = math.min(p.hold - now, p.len)
    p.hold = now + p.left
  end
  local at = math.min(tonumber(h[2] or now), now + math.max(p.left, 0))
  if now > at then p.credit = p.credit + (now - at) * 1000 end
  p.credit, p.at = math.min(p.credit, burst), math.max(at, now)
  return p
end
local function keep(p)
  redis.call('HSET', KEYS[1], 'credit', whole(p.credit), 'at', whole(p.at),
    'refuses', p.refuses, 'strikes', p.strikes, 'probe', whole(p.probe))
  if p.hold then
    redis.call('HSET', KEYS[1], 'hold', whole(p.hold), 'hold_len', whole(p.len))
  else
    redis.call('HDEL', KEYS[1], 'hold', 'hold_len')
  end
end
";

/// A script: its flags and its text.
struct ScriptText {
    flags: &'static str,
    text: &'static str,
}

/// The name of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum ScriptName {
    Claim,
    Renew,
    Release,
    Want,
    KeepAnswer,
    Begin,
    PutBack,
    Append,
    Renewed,
    End,
    Head,
    Touch,
    Forget,
    Settle,
    Purges,
    Purge,
    Look,
    Board,
    Land,
    Fail,
    GiveUp,
    Take,
    KeepCall,
    EndCall,
    Word,
    Use,
    Slot,
    SlotUsed,
    SlotEnded,
    Beat,
}

const TEXTS: [ScriptText; 30] = [
    // Claim: KEYS line; ARGV claim, lease, life.
    ScriptText {
        flags: "allow-oom",
        text: "\
local l = redis.call('HMGET', KEYS[1], 'claim', 'until', 'len')
if l[1] and l[1] ~= ARGV[1] then
  local left = rest('until', l[2], l[3])
  if left > 0 then return left end
end
redis.call('HSET', KEYS[1], 'claim', ARGV[1], 'until', now + tonumber(ARGV[2]), 'len', ARGV[2])
live(KEYS[1], ARGV[3])
return 'lead'
",
    },
    // Renew: KEYS line; ARGV claim, lease, life.
    ScriptText {
        flags: "allow-oom",
        text: "\
local l = redis.call('HMGET', KEYS[1], 'claim', 'want', 'far', 'lane', 'want_until', 'want_len',
  'turn_until', 'turn_len', 'last')
local holder = l[1] or l[9]
if holder and holder ~= ARGV[1] then return 'deposed' end
redis.call('HSET', KEYS[1], 'claim', ARGV[1], 'until', now + tonumber(ARGV[2]), 'len', ARGV[2])
live(KEYS[1], ARGV[3])
local want = { 0, 0, 0, 0, 0 }
local left = l[5] and rest('want_until', l[5], l[6]) or 0
if left > 0 then want = { tonumber(l[2]), tonumber(l[3]), tonumber(l[4]), left, 0 } end
if l[7] and rest('turn_until', l[7], l[8]) > 0 then want[5] = 1 end
return want
",
    },
    // Release: KEYS line; ARGV claim, line's name. Who had the claim last stays known, so that a
    // gateway that had it before does not renew it.
    ScriptText {
        flags: "allow-oom",
        text: "\
if redis.call('HGET', KEYS[1], 'claim') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'claim', 'until', 'len')
  redis.call('HSET', KEYS[1], 'last', ARGV[1])
  wake('ln' .. ARGV[2])
end
return 'kept'
",
    },
    // Want: KEYS line; ARGV rows, furthest, lane, left, whether a walk waits for its turn,
    // life, line's name.
    ScriptText {
        flags: "allow-oom",
        text: "\
local l = redis.call('HMGET', KEYS[1], 'cur', 'claim', 'until', 'len', 'want', 'far', 'lane',
  'want_until', 'want_len', 'turn_until', 'turn_len')
local rows, far, lane = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local len, more = tonumber(ARGV[4]), false
if len > 0 then
  if ARGV[5] == '1' then
    more = not (l[10] and rest('turn_until', l[10], l[11]) > 0)
    redis.call('HSET', KEYS[1], 'turn_until', now + len, 'turn_len', len)
  end
  live(KEYS[1], ARGV[6])
end
if len > 0 and rows > 0 then
  local left = l[8] and rest('want_until', l[8], l[9]) or 0
  if left > 0 then
    local was, was_far, was_lane = tonumber(l[5]), tonumber(l[6]), tonumber(l[7])
    rows, far, lane = math.max(rows, was), math.max(far, was_far), math.min(lane, was_lane)
    len = math.max(len, left)
    more = more or rows > was or far > was_far or lane < was_lane
  else
    more = true
  end
  redis.call('HSET', KEYS[1], 'want', rows, 'far', far, 'lane', lane, 'want_until', now + len,
    'want_len', len)
end
if more then wake('wt' .. ARGV[7]) end
local left = 0
if l[2] then left = math.max(0, rest('until', l[3], l[4])) end
return { l[1] or '', left }
",
    },
    // KeepAnswer: KEYS answer; ARGV record, negative, life.
    ScriptText {
        flags: "",
        text: "\
if ARGV[2] == '1' and redis.call('HGET', KEYS[1], 'neg') == '0' then return 'conflict' end
redis.call('HSET', KEYS[1], 'rec', ARGV[1], 'neg', ARGV[2])
redis.call('HDEL', KEYS[1], 'at')
live(KEYS[1], ARGV[3])
return 'kept'
",
    },
    // Begin: KEYS line, snapshot; ARGV line's name, snapshot's name, head, was, zero chain,
    // life, then what fences it: claim (empty: nothing), lease.
    ScriptText {
        flags: "",
        text: "\
if not fence(KEYS[1], ARGV[7], ARGV[8]) then return 'deposed' end
local current = redis.call('HGET', KEYS[1], 'cur') or ''
if redis.call('EXISTS', KEYS[2]) == 1 then
  if current == ARGV[2] then return 'kept' end
  return 'conflict'
end
if current ~= ARGV[4] then return 'conflict' end
redis.call('HSET', KEYS[2], 'line', ARGV[1], 'head', ARGV[3], 'n', 0, 'rows', 0,
  'chain', ARGV[5], 'before', ARGV[5], 'end', 0)
redis.call('HSET', KEYS[1], 'cur', ARGV[2])
live(KEYS[2], ARGV[6])
live(KEYS[1], ARGV[6])
wake('ln' .. ARGV[1])
return 'kept'
",
    },
    // PutBack: KEYS line, snapshot; ARGV line's name, head, zero chain, life, then what fences it:
    // claim (empty: nothing), lease.
    ScriptText {
        flags: "",
        text: "\
if not fence(KEYS[1], ARGV[5], ARGV[6]) then return 'deposed' end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'kept' end
redis.call('HSET', KEYS[2], 'line', ARGV[1], 'head', ARGV[2], 'n', 0, 'rows', 0,
  'chain', ARGV[3], 'before', ARGV[3], 'end', 0)
live(KEYS[2], ARGV[4])
return 'kept'
",
    },
    // Append: KEYS snapshot, line; ARGV number, chain, next, rows, chunk, since, most chunks,
    // life, claim (empty: nothing fences it), lease.
    ScriptText {
        flags: "",
        text: "\
if not fence(KEYS[2], ARGV[9], ARGV[10]) then return 'deposed' end
local s = redis.call('HMGET', KEYS[1], 'n', 'chain', 'before', 'end', 'head_at', 'line')
if not s[1] then return 'gone' end
local n, number = tonumber(s[1]), tonumber(ARGV[1])
if n == number + 1 and s[3] == ARGV[2] and s[2] == ARGV[3] then return 'kept' end
if n ~= number or s[2] ~= ARGV[2] or s[4] ~= '0' then return 'conflict' end
if number >= tonumber(ARGV[7]) then return 'full' end
local head_at = s[5] or now - tonumber(ARGV[6])
redis.call('HSET', KEYS[1], 'c' .. number, ARGV[5], 'n', n + 1, 'chain', ARGV[3],
  'before', ARGV[2], 'head_at', head_at, 'whole_at', head_at)
redis.call('HINCRBY', KEYS[1], 'rows', ARGV[4])
live(KEYS[1], ARGV[8])
wake((number == 0 and 'hd' or 'ln') .. s[6])
return 'kept'
",
    },
    // Renewed: KEYS snapshot; ARGV since of the head, since of the whole, life.
    ScriptText {
        flags: "allow-oom",
        text: "\
local line = redis.call('HGET', KEYS[1], 'line')
if not line then return 'gone' end
redis.call('HSET', KEYS[1], 'head_at', now - tonumber(ARGV[1]),
  'whole_at', now - tonumber(ARGV[2]))
live(KEYS[1], ARGV[3])
wake('hd' .. line)
return 'kept'
",
    },
    // End: KEYS snapshot, line; ARGV end, life, chunks (empty: whatever they are), chain, claim
    // (empty: nothing fences it), lease.
    ScriptText {
        flags: "allow-oom",
        text: "\
if not fence(KEYS[2], ARGV[5], ARGV[6]) then return 'deposed' end
local s = redis.call('HMGET', KEYS[1], 'end', 'n', 'chain', 'line')
if not s[1] then return 'gone' end
if s[1] == '0' then
  if ARGV[3] ~= '' and (s[2] ~= ARGV[3] or s[3] ~= ARGV[4]) then return 'conflict' end
  redis.call('HSET', KEYS[1], 'end', ARGV[1])
  wake('hd' .. s[4])
end
live(KEYS[1], ARGV[2])
return 'kept'
",
    },
    // Head: KEYS snapshot.
    ScriptText {
        flags: "no-writes",
        text: "\
local s = redis.call('HMGET', KEYS[1], 'line', 'n', 'rows', 'chain', 'end', 'head',
  'head_at', 'whole_at')
if not s[1] then return {} end
local ages = {}
if s[7] then ages = { now - tonumber(s[7]), now - tonumber(s[8]) } end
return { s[1], tonumber(s[2]), tonumber(s[3]), s[4], tonumber(s[5]), s[6], ages }
",
    },
    // Touch: KEYS snapshot; ARGV life.
    ScriptText {
        flags: "allow-oom",
        text: "\
local line = redis.call('HGET', KEYS[1], 'line')
if not line then return 'gone' end
live(KEYS[1], ARGV[1])
return 'kept'
",
    },
    // Forget: KEYS snapshot; ARGV snapshot's name, what a line's key begins and ends with.
    ScriptText {
        flags: "allow-oom",
        text: "\
local line = redis.call('HGET', KEYS[1], 'line')
if not line then return 'kept' end
redis.call('UNLINK', KEYS[1])
local hex = string.gsub(line, '.', function(c) return string.format('%02x', string.byte(c)) end)
local key = ARGV[2] .. hex .. ARGV[3]
if redis.call('HGET', key, 'cur') == ARGV[1] then redis.call('HDEL', key, 'cur') end
return 'kept'
",
    },
    // Settle: KEYS hash; ARGV field, record.
    ScriptText {
        flags: "allow-oom",
        text: "\
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HGET', KEYS[1], ARGV[1])
",
    },
    // Purges: KEYS purges.
    ScriptText {
        flags: "no-writes",
        text: "\
local p = redis.call('HMGET', KEYS[1], 'seq', 'rec')
return { p[1] or '0', p[2] }
",
    },
    // Purge: KEYS purges; ARGV was, number, record. Numbers are texts: they may be longer than
    // what a script counts exactly.
    ScriptText {
        flags: "allow-oom",
        text: "\
if (redis.call('HGET', KEYS[1], 'seq') or '0') ~= ARGV[1] then return 'conflict' end
redis.call('HSET', KEYS[1], 'seq', ARGV[2], 'rec', ARGV[3])
wake('pg')
return 'kept'
",
    },
    // Look: KEYS answer.
    ScriptText {
        flags: "no-writes",
        text: "\
local a = redis.call('HMGET', KEYS[1], 'rec', 'at')
if not (a[1] and a[2]) then return {} end
return { a[1], now - tonumber(a[2]) }
",
    },
    // Board: KEYS answer; ARGV claim, lease, since (-1: none), slack, life. An answer from the
    // future has an unknown age and counts as none: a clock was set back.
    ScriptText {
        flags: "allow-oom",
        text: "\
local a = redis.call('HMGET', KEYS[1], 'rec', 'at', 'claim', 'until', 'lease',
  'fail', 'fail_until', 'fail_len')
local since, slack = tonumber(ARGV[3]), tonumber(ARGV[4])
local age = a[2] and now - tonumber(a[2]) or -1
if a[1] and age >= 0 and (since < 0 or age + slack < since) then
  return { a[1], age }
end
if a[6] and rest('fail_until', a[7], a[8]) > 0 then return { a[6] } end
if a[3] and a[3] ~= ARGV[1] then
  local left = rest('until', a[4], a[5])
  if left > 0 then return left end
end
redis.call('HDEL', KEYS[1], 'fail', 'fail_until', 'fail_len')
redis.call('HSET', KEYS[1], 'claim', ARGV[1], 'until', now + tonumber(ARGV[2]), 'lease', ARGV[2])
live(KEYS[1], ARGV[5])
return 'lead'
",
    },
    // Land: KEYS answer; ARGV claim, record, negative, since, slack, life, answer's name. It rings
    // for a refused answer too, because the claim has ended.
    ScriptText {
        flags: "",
        text: "\
local a = redis.call('HMGET', KEYS[1], 'claim', 'neg', 'at')
wake('an' .. ARGV[7])
if a[1] == ARGV[1] then redis.call('HDEL', KEYS[1], 'claim', 'until', 'lease') end
local at = now - tonumber(ARGV[4])
if ARGV[3] == '1' and a[2] == '0' then return 'conflict' end
local was = a[3] and tonumber(a[3])
if was and was <= now and at + tonumber(ARGV[5]) < was then return 'conflict' end
redis.call('HDEL', KEYS[1], 'fail', 'fail_until', 'fail_len')
redis.call('HSET', KEYS[1], 'rec', ARGV[2], 'neg', ARGV[3], 'at', at)
live(KEYS[1], ARGV[6])
return 'kept'
",
    },
    // Fail: KEYS answer; ARGV claim, record, hold, life, answer's name.
    ScriptText {
        flags: "allow-oom",
        text: "\
if redis.call('HGET', KEYS[1], 'claim') ~= ARGV[1] then return 'conflict' end
redis.call('HDEL', KEYS[1], 'claim', 'until', 'lease')
redis.call('HSET', KEYS[1], 'fail', ARGV[2], 'fail_until', now + tonumber(ARGV[3]),
  'fail_len', ARGV[3])
live(KEYS[1], ARGV[4])
wake('an' .. ARGV[5])
return 'kept'
",
    },
    // GiveUp: KEYS answer; ARGV claim, answer's name.
    ScriptText {
        flags: "allow-oom",
        text: "\
if redis.call('HGET', KEYS[1], 'claim') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'claim', 'until', 'lease')
  wake('an' .. ARGV[2])
end
return 'kept'
",
    },
    // Take: KEYS pace, calls; ARGV call, cost, burst, needed, places, length of a place, owed,
    // time between probes, longest place. Credit is in microseconds, times are in milliseconds.
    ScriptText {
        flags: "allow-oom",
        text: "\
local cost, burst, needed = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local places, owed = tonumber(ARGV[5]), tonumber(ARGV[7])
local p = count(burst, tonumber(ARGV[8]))
p.credit = math.max(p.credit - owed, -burst)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. whole(now + tonumber(ARGV[9])), '+inf')
local busy = redis.call('ZCARD', KEYS[2])
if p.strikes > 0 then places = 1 end
local word, wait = 'taken', 0
if p.left > 0 and (busy >= places or now < p.probe) then
  word, wait = 'held', p.left
elseif busy >= places then
  word = 'places'
elseif p.left <= 0 and p.credit < needed then
  word, wait = 'credit', math.floor((needed - p.credit + 999) / 1000)
else
  p.credit = math.max(p.credit - cost, -burst)
  redis.call('ZADD', KEYS[2], whole(now + tonumber(ARGV[6])), ARGV[1])
  busy = busy + 1
  if p.left > 0 then
    word, wait, p.probe = 'probe', p.left, now + tonumber(ARGV[8])
  end
end
keep(p)
return { word, wait, p.refuses, p.credit, busy, p.strikes }
",
    },
    // KeepCall: KEYS pace, calls; ARGV call, length of its place.
    ScriptText {
        flags: "allow-oom",
        text: "\
redis.call('ZADD', KEYS[2], 'XX', now + tonumber(ARGV[2]), ARGV[1])
return 'kept'
",
    },
    // EndCall: KEYS pace, calls; ARGV call, credit that is given back.
    ScriptText {
        flags: "allow-oom",
        text: "\
if redis.call('ZREM', KEYS[2], ARGV[1]) == 1 and redis.call('HGET', KEYS[1], 'at') then
  redis.call('HINCRBY', KEYS[1], 'credit', ARGV[2])
end
return 'kept'
",
    },
    // Word: KEYS pace; ARGV cost, burst, stop (-1: none), refuses, strike, answered, most credit
    // (-1: any), resume, time between probes.
    ScriptText {
        flags: "allow-oom",
        text: "\
local cost, stop, most = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[7])
local p = count(tonumber(ARGV[2]), tonumber(ARGV[9]))
if ARGV[8] == '1' then p.hold, p.left, p.at = nil, 0, now end
if ARGV[5] == '1' and not (p.left > 0 and p.refuses == 1) then p.strikes = p.strikes + 1 end
if ARGV[6] == '1' and p.left <= 0 then p.strikes = 0 end
if most >= 0 and p.left <= 0 then p.credit = math.min(p.credit, most) end
if stop >= 0 then
  if p.left <= 0 then
    p.probe, p.refuses = now + tonumber(ARGV[9]), 0
  end
  local left = math.max(p.left, stop)
  p.credit = math.min(p.credit + (now + left - p.at) * 1000, cost)
  p.at, p.hold, p.len = now + left, now + left, left
  if ARGV[4] == '1' then p.refuses = 1 end
end
keep(p)
return 'kept'
",
    },
    // Use: KEYS used; ARGV replica, number of the batch, life, callers, then a name and requests
    // for each. A value is a minute, the requests in it and those in the minute before; of a
    // replica it is a minute and a batch. What is older goes when a minute begins, and so does
    // what a clock that jumped back left in the future.
    ScriptText {
        flags: "allow-oom",
        text: "\
local minute = math.floor(now / 60000)
local text = string.format('%.0f', minute)
if redis.call('HGET', KEYS[1], 'minute') ~= text then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local of = tonumber(string.match(all[i + 1], '^%d+'))
    if not of or of < minute - 1 or of > minute then redis.call('HDEL', KEYS[1], all[i]) end
  end
  redis.call('HSET', KEYS[1], 'minute', text)
end
local me = 'r' .. ARGV[1]
local was = string.match(redis.call('HGET', KEYS[1], me) or '', '^%d+ (%d+)$')
redis.call('HSET', KEYS[1], me, text .. ' ' .. ARGV[2])
local sums = {}
for i = 1, tonumber(ARGV[4]) do
  local field, count = 'c' .. ARGV[3 + 2 * i], tonumber(ARGV[4 + 2 * i])
  local of, sum, before = string.match(redis.call('HGET', KEYS[1], field) or '',
    '^(%d+) (%d+) (%d+)$')
  of, sum, before = tonumber(of or 0), tonumber(sum or 0), tonumber(before or 0)
  if of ~= minute then sum, before = 0, sum end
  if was ~= ARGV[2] and count > 0 then
    sum = sum + count
    redis.call('HSET', KEYS[1], field, string.format('%s %.0f %.0f', text, sum, before))
  end
  sums[#sums + 1], sums[#sums + 2] = sum, before
end
live(KEYS[1], ARGV[3])
return { minute, sums }
",
    },
    // Slot: KEYS scrolls, waiting; ARGV scroll (its claim and its payer), most scrolls (0: only
    // look), slots that stay free, whether it is background work, expiry, how long a payer counts
    // as waiting, times what is free.
    ScriptText {
        flags: "allow-oom",
        text: "\
local max, kept, latest = tonumber(ARGV[2]), tonumber(ARGV[3]), now + tonumber(ARGV[5])
local latest_wait, payer = now + tonumber(ARGV[6]), string.sub(ARGV[1], 17)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], string.format('(%.0f', latest_wait), '+inf')
local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local held, known, standing = {}, false, #all / 2
for i = 1, #all, 2 do
  local of = string.sub(all[i], 17)
  held[of] = (held[of] or 0) + 1
  if all[i] == ARGV[1] then known = true end
  if tonumber(all[i + 1]) > latest then redis.call('ZADD', KEYS[1], latest, all[i]) end
end
local own, mine, waiting, first = payer .. ARGV[4], held[payer] or 0, 0, 0
for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if other ~= own then
    waiting = waiting + 1
    local of, background = string.sub(other, 1, 16), string.sub(other, 17)
    if of ~= payer and background <= ARGV[4] and (held[of] or 0) < mine then first = first + 1 end
  end
end
local free, granted = math.max(max - standing, 0), 0
if max > 0 then
  if known or (free > kept + first and mine < free * tonumber(ARGV[7])) then
    granted = 1
    redis.call('ZADD', KEYS[1], latest, ARGV[1])
    redis.call('ZREM', KEYS[2], own)
    if not known then standing, mine = standing + 1, mine + 1 end
  else
    redis.call('ZADD', KEYS[2], latest_wait, own)
  end
end
return { granted, standing, mine, waiting }
",
    },
    // SlotUsed: KEYS scrolls; ARGV scroll, expiry.
    ScriptText {
        flags: "allow-oom",
        text: "\
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
return 'kept'
",
    },
    // SlotEnded: KEYS scrolls; ARGV scroll.
    ScriptText {
        flags: "allow-oom",
        text: "\
redis.call('ZREM', KEYS[1], ARGV[1])
return 'kept'
",
    },
    // Beat: KEYS id, replicas, purges; ARGV replica (empty: counts nobody), applied, what the id
    // is where there is none, how long a replica counts. A value is when it was heard of, and
    // the purges that it follows.
    ScriptText {
        flags: "allow-oom",
        text: "\
redis.call('HSETNX', KEYS[1], 'id', ARGV[3])
if ARGV[1] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], now .. ' ' .. ARGV[2]) end
local seq = redis.call('HGET', KEYS[3], 'seq') or '0'
local all = redis.call('HGETALL', KEYS[2])
local replicas, applied = 0, 0
for i = 1, #all, 2 do
  local at, has = string.match(all[i + 1], '^(%d+) (%d+)$')
  local age = at and now - tonumber(at)
  if age and age >= 0 and age <= tonumber(ARGV[4]) then
    replicas = replicas + 1
    if #has > #seq or (#has == #seq and has >= seq) then applied = applied + 1 end
  else
    redis.call('HDEL', KEYS[2], all[i])
  end
end
return { redis.call('HGET', KEYS[1], 'id'), seq, replicas, applied }
",
    },
];

/// A script in the form in which it is sent.
pub(super) struct Script {
    /// The whole text.
    pub text: String,
    /// The hash by which the server identifies it.
    pub hash: String,
    /// Whether its last argument, before a given time, is the channel of the bell.
    pub rings: bool,
}

/// All scripts.
pub(super) struct Scripts {
    scripts: Vec<Script>,
    /// Whether the last argument is the time.
    pub time_is_given: bool,
}

impl Scripts {
    /// Creates the scripts, which read the engine's time.
    pub fn new() -> Self {
        Self::over(TIME, RING, false)
    }

    /// Creates the scripts for tests, with the time as the last argument.
    #[cfg(test)]
    pub fn with_given_time() -> Self {
        Self::over(TIME_GIVEN, RING_BEFORE_TIME, true)
    }

    fn over(time: &str, ring: &str, time_is_given: bool) -> Self {
        let scripts = TEXTS.iter().map(|script| {
            let ScriptText { flags, text } = script;
            let first = match flags.is_empty() {
                true => "#!lua\n".to_owned(),
                false => format!("#!lua flags={flags}\n"),
            };
            let purse = if text.contains("count(") { PURSE } else { "" };
            let rings = text.contains("wake(");
            let ring = if rings { ring } else { "" };
            let text = format!("{first}{time}{LIVE}{REST}{FENCE}{purse}{ring}{text}");
            let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
            let hash = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            Script { text, hash, rings }
        });
        Self {
            scripts: scripts.collect(),
            time_is_given,
        }
    }

    pub fn get(&self, name: ScriptName) -> Option<&Script> {
        self.scripts.get(name as usize)
    }

    pub fn all(&self) -> impl Iterator<Item = &Script> {
        self.scripts.iter()
    }
}
