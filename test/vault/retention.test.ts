import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { repairCommand } from '../../src/commands/repair.ts'
import { retentionCommand } from '../../src/commands/retention.ts'
import { defaultVault } from '../../src/config/env.ts'
import { hourPath, retentionLockPath, retentionStatePath } from '../../src/vault/layout.ts'
import { acquireLock } from '../../src/vault/lock.ts'
import { type RetentionOptions, type RetentionStep, runRetention } from '../../src/vault/retention.ts'

const NOW = Date.UTC(2026, 10, 20, 12, 30)
const HOUR_MS = 3_600_000
let folder: string
let vault: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-retention-'))
  vault = join(folder, 'vault')
  mkdirSync(vault)
})
afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true })
})

/** The plain path of the hour that began so many full hours before the current one. */
function hourAgo(hours: number, name = 'BTC-USDT-SWAP', nowMs = NOW): string {
  return hourPath(vault, 'okx', 'l2_perps', name, Math.floor(nowMs / HOUR_MS) - hours)
}

function lines(seed: number, count = 50): string {
  return Array.from({ length: count }, (_, i) => `{"recv_us":${seed * 1e9 + i},"text":"${seed} é ${i}"}\n`).join('')
}

function put(path: string, content: string | Buffer): string {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, path.endsWith('.gz') && typeof content === 'string' ? gzipSync(content) : content)
  return path
}

/** Every file of the vault with its content, but for the clock of the last run. */
function tree(): Record<string, string> {
  const names = readdirSync(vault, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  const kept = names.filter(entry => entry.name !== basename(retentionStatePath(vault)))
  const paths = kept.map(entry => join(entry.parentPath, entry.name)).sort()
  return Object.fromEntries(paths.map(path => [relative(vault, path), readFileSync(path, 'latin1')]))
}

function run(options: Partial<RetentionOptions> = {}) {
  return runRetention(vault, { nowMs: NOW, ...options })
}

function unpacked(path: string): string {
  return gunzipSync(readFileSync(`${path}.gz`)).toString()
}

test('hours are compressed 6 h and deleted 5 days after their end, whatever the file times say', async () => {
  for (const hours of [0, 1, 6, 7, 8, 119, 120, 121, 400]) {
    const path = put(hourAgo(hours), lines(hours))
    const age = hours < 7 ? 1e6 : 0
    utimesSync(path, NOW / 1000 - age, NOW / 1000 - age)
  }
  put(`${hourAgo(130)}.gz`, lines(1))
  put(`${hourAgo(130)}.torn`, 'half')
  put(`${hourAgo(131)}.gz.tmp`, 'half')
  put(`${hourAgo(100)}.torn`, 'half')
  const before = tree()
  const dry = await run({ dryRun: true })
  expect(tree()).toEqual(before)
  const report = await run()
  expect(report.failed).toEqual([])
  const paths = (list: readonly { path: string }[]) => list.map(({ path }) => path)
  expect(paths(dry.compressed)).toEqual(paths(report.compressed))
  expect(paths(dry.deleted)).toEqual(paths(report.deleted))
  for (const hours of [0, 1, 6]) expect(readFileSync(hourAgo(hours), 'utf8')).toBe(lines(hours))
  for (const hours of [7, 8, 119, 120]) expect(unpacked(hourAgo(hours))).toBe(lines(hours))
  expect(Object.keys(tree()).filter(path => !path.endsWith('.gz'))).toHaveLength(4)
  expect(existsSync(`${hourAgo(100)}.torn`)).toBe(true)
  for (const hours of [7, 119, 121, 130, 131, 400]) expect(existsSync(hourAgo(hours))).toBe(false)
  for (const hours of [130, 400]) expect(existsSync(`${hourAgo(hours)}.gz`)).toBe(false)
  expect(existsSync(dirname(hourAgo(400)))).toBe(false)
  expect(report.directories).toEqual([dirname(hourAgo(400)), ...report.directories.slice(1)])
  const after = tree()
  expect(await run()).toMatchObject({ compressed: [], finished: [], deleted: [], failed: [] })
  expect(tree()).toEqual(after)
})

test('the moment counts: exactly 6 h after the end, not a millisecond before', async () => {
  const end = Math.floor(NOW / HOUR_MS) * HOUR_MS
  const path = put(hourAgo(1), lines(1))
  expect((await run({ nowMs: end + 6 * HOUR_MS - 1 })).compressed).toEqual([])
  expect((await run({ nowMs: end + 6 * HOUR_MS })).compressed).toMatchObject([{ path, joined: false }])
  expect((await run({ nowMs: end + 120 * HOUR_MS - 1, deleteNow: true })).deleted).toEqual([])
  expect((await run({ nowMs: end + 120 * HOUR_MS })).deleted).toMatchObject([{ path: `${path}.gz` }])
})

const BOTH: [string, string, string, string, string][] = [
  ['late lines are joined', lines(1), lines(2), lines(1) + lines(2), 'joined'],
  ['the same content twice', lines(1), lines(1), lines(1), 'finished'],
  ['the tail of a joined file', lines(1) + lines(2), lines(2), lines(1) + lines(2), 'finished'],
  ['an empty plain file', lines(1), '', lines(1), 'finished'],
  ['a plain file that grew after it was compressed', lines(1), lines(1) + lines(2), lines(1) + lines(2), 'joined'],
  ['half a line before late lines', `${lines(1)}half`, lines(2), `${lines(1)}half\n${lines(2)}`, 'joined'],
  ['an empty compressed file', '', lines(2), lines(2), 'joined']
]

test.each(BOTH)('an hour with both files: %s', async (_, packed, plain, want, how) => {
  const path = put(hourAgo(9), plain)
  put(`${path}.gz`, packed)
  const report = await run()
  expect(report.failed).toEqual([])
  expect(unpacked(path)).toBe(want)
  expect(existsSync(path)).toBe(false)
  expect(how === 'joined' ? report.compressed : report.finished).toMatchObject([{ path }])
})

const STEPS: RetentionStep[] = ['compress', 'temporary-written', 'temporary-compared', 'renamed', 'plain-deleted']
/** How long ago the hour was whose handling dies; 11: its lines are compressed already, so that it has two steps only. */
const CRASHES = [9, 10, 11].flatMap(hours =>
  (hours === 11 ? (['compress', 'plain-deleted'] as const) : STEPS).map(step => ({ hours, step }))
)

test.each(CRASHES)('a crash at $step of the hour $hours h ago loses and doubles nothing', async ({ hours, step }) => {
  const [single, late, done] = [hourAgo(9), hourAgo(10), hourAgo(11)]
  const content = { [single]: lines(1, 5000), [late]: lines(2) + lines(3), [done]: lines(4) }
  put(single, content[single]!)
  put(`${late}.gz`, lines(2))
  put(late, lines(3))
  put(`${done}.gz`, lines(4))
  put(done, lines(4))
  const onStep = (at: RetentionStep, path: string) => {
    if (at === step && path === hourAgo(hours)) throw new Error('power cut')
  }
  await expect(run({ onStep })).rejects.toThrow('power cut')
  expect((await run()).failed).toEqual([])
  for (const [path, want] of Object.entries(content)) {
    expect(unpacked(path)).toBe(want)
    expect(existsSync(path)).toBe(false)
    expect(existsSync(`${path}.gz.tmp`)).toBe(false)
  }
})

test.each(['delete', 'deleted'] as const)('a crash at the step %s is made up for', async crash => {
  put(hourAgo(150), lines(1))
  put(`${hourAgo(150)}.gz`, lines(2))
  const onStep = (step: RetentionStep) => {
    if (step === crash) throw new Error('power cut')
  }
  await expect(run({ onStep })).rejects.toThrow('power cut')
  await run()
  expect(tree()).toEqual({})
  expect(existsSync(dirname(hourAgo(150)))).toBe(false)
})

test('leftovers of compressions go when nothing can finish them', async () => {
  const path = put(`${hourAgo(9)}.gz`, lines(1))
  put(`${path}.tmp`, 'half')
  put(hourAgo(10), lines(2))
  put(`${hourAgo(10)}.gz.tmp`, 'half')
  expect(await run()).toMatchObject({ failed: [], leftovers: [{ path: `${path}.tmp`, bytes: 4 }] })
  expect(unpacked(hourAgo(9))).toBe(lines(1))
  expect(unpacked(hourAgo(10))).toBe(lines(2))
  expect(Object.keys(tree())).toHaveLength(2)
})

test('a damaged .gz is reported, nothing of its hour is touched, and the others are done', async () => {
  const bad = put(hourAgo(9), lines(1))
  const packed = gzipSync(lines(2)).subarray(0, -4)
  put(`${bad}.gz`, packed)
  const good = put(hourAgo(8), lines(3))
  const report = await run()
  expect(report.failed).toMatchObject([{ path: bad, message: expect.stringContaining('damaged') }])
  expect(readFileSync(bad, 'utf8')).toBe(lines(1))
  expect(readFileSync(`${bad}.gz`)).toEqual(packed)
  expect(unpacked(good)).toBe(lines(3))
})

test.each(['temporary-compared', 'renamed'] as const)('lines that come at the step %s are kept', async moment => {
  const path = put(hourAgo(9), lines(1))
  const onStep = (step: RetentionStep) => {
    if (step === moment) appendFileSync(path, lines(2))
  }
  expect((await run({ onStep })).failed).toMatchObject([{ path, message: expect.stringContaining('changed') }])
  expect(readFileSync(path, 'utf8')).toBe(lines(1) + lines(2))
  expect(existsSync(`${path}.gz.tmp`)).toBe(false)
  expect((await run()).failed).toEqual([])
  expect(unpacked(path)).toBe(lines(1) + lines(2))
})

test('what was not written as meant is never trusted', async () => {
  const path = put(hourAgo(9), lines(1))
  const onStep = (step: RetentionStep) => {
    if (step === 'temporary-written') writeFileSync(`${path}.gz.tmp`, gzipSync(lines(2)))
  }
  expect((await run({ onStep })).failed).toMatchObject([{ path, message: expect.stringContaining('does not hold') }])
  expect(Object.values(tree())).toEqual([Buffer.from(lines(1)).toString('latin1')])
})

test.skipIf(process.platform === 'win32')('links, foreign files and foreign directories are left alone', async () => {
  const outside = put(join(folder, 'outside', '05.jsonl'), lines(1))
  const links = [hourAgo(40), `${hourAgo(41)}.gz`, `${hourAgo(42)}.gz.tmp`, hourAgo(200), `${hourAgo(201)}.gz`]
  for (const link of links) {
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(outside, link)
  }
  symlinkSync(dirname(outside), join(vault, 'raw/okx/l2_perps/LINKED'))
  symlinkSync(dirname(outside), join(dirname(dirname(hourAgo(0))), '2023-01-01'))
  put(hourAgo(41), lines(2))
  put(hourAgo(42), lines(3))
  mkdirSync(`${hourAgo(43)}.gz`)
  put(hourAgo(43), lines(4))
  const foreign = [
    'raw/README.txt',
    'raw/okx/l2_perps/X/2023-12-14/99.jsonl',
    'raw/okx/l2_perps/X/2023-12-14/15.jsonl.bak'
  ]
  for (const inside of [...foreign, 'raw/okx/l2_perps/X/2023-13-45/05.jsonl', 'raw/okx/l8/X/2023-12-14/05.jsonl']) {
    put(join(vault, inside), lines(5))
  }
  const before = tree()
  const report = await run()
  expect(tree()).toEqual(before)
  expect(report.failed.map(({ path }) => path).sort()).toEqual([hourAgo(41), hourAgo(42), hourAgo(43)].sort())
  expect(readFileSync(outside, 'utf8')).toBe(lines(1))
  rmSync(join(vault, 'raw'), { recursive: true })
  symlinkSync(dirname(outside), join(vault, 'raw'))
  await expect(run()).rejects.toMatchObject({ code: 'VAULT', message: expect.stringContaining('is a link') })
})

test('only the streams of the filter are touched', async () => {
  const [one, other] = [put(hourAgo(9, 'A'), lines(1)), put(hourAgo(9, 'B'), lines(2))]
  await run({ filter: { name: 'A' } })
  expect(existsSync(one)).toBe(false)
  expect(existsSync(other)).toBe(true)
})

test('a clock behind the vault is reported and does no harm', async () => {
  put(hourAgo(0), lines(1))
  const report = await run({ nowMs: NOW - 240 * HOUR_MS })
  expect(report.warnings).toMatchObject([expect.stringContaining('clock')])
  expect(Object.keys(tree())).toHaveLength(1)
})

const DAY_MS = 24 * HOUR_MS

test('a clock that leaps ahead deletes nothing for a day; compressing goes on', async () => {
  const young = put(hourAgo(1), lines(1))
  const [old, older] = [put(hourAgo(50), lines(2)), put(`${hourAgo(60)}.torn`, 'half')]
  expect(await run()).toMatchObject({ heldUntil: null, warnings: [] })
  const leaptMs = NOW + 3 * DAY_MS
  const dry = await run({ nowMs: leaptMs, dryRun: true })
  expect(dry.heldUntil).toBe('2026-11-24T12:30:00.000Z')
  // Also what is old enough by the wrong clock only, a year later: the newest lines of a vault would go first.
  const far = { nowMs: NOW + 365 * DAY_MS }
  const report = await run(far)
  const held = [`${old}.gz`, older, young].sort()
  expect(report.held.map(({ path }) => path).sort()).toEqual(held)
  expect(report).toMatchObject({ deleted: [], directories: [], failed: [], heldUntil: '2027-11-21T12:30:00.000Z' })
  expect(report.warnings[0]).toContain('--delete-now')
  for (const path of held) expect(existsSync(path)).toBe(true)
  // Each run of that day says it again; then the clock is believed.
  const next = await run({ nowMs: far.nowMs + DAY_MS - 1 })
  expect(next).toMatchObject({ deleted: [], warnings: [expect.stringContaining('had leapt')] })
  expect((await run({ nowMs: far.nowMs + DAY_MS })).deleted.map(({ path }) => path).sort()).toEqual(held)
})

test('while deletions are held hours go on to be compressed', async () => {
  await run()
  const path = put(hourAgo(-60), lines(1))
  const report = await run({ nowMs: NOW + 3 * DAY_MS })
  expect(report).toMatchObject({ compressed: [{ path }], held: [] })
  expect(report.heldUntil).not.toBeNull()
})

test('a hold ends with --delete-now, or when the clock is set right', async () => {
  await run()
  const leapt = { nowMs: NOW + 30 * DAY_MS }
  const path = put(hourAgo(9), lines(1))
  expect((await run(leapt)).held).toMatchObject([{ path }])
  // A second back is no setting right.
  expect((await run({ nowMs: leapt.nowMs - 1000 })).held).toMatchObject([{ path }])
  expect(await run()).toMatchObject({ heldUntil: null, held: [], compressed: [{ path }] })
  expect((await run(leapt)).held).toMatchObject([{ path: `${path}.gz` }])
  expect((await run({ ...leapt, deleteNow: true })).deleted).toMatchObject([{ path: `${path}.gz` }])
  expect((await run({ nowMs: leapt.nowMs + HOUR_MS })).heldUntil).toBeNull()
})

test.each(['', '{"last_run_utc":"soon"}', '[]', 'null', '{"last_run_utc":'])(
  'a state of %j counts as none',
  async text => {
    await run()
    writeFileSync(retentionStatePath(vault), text)
    const path = put(hourAgo(9), lines(1))
    expect(await run({ nowMs: NOW + 30 * DAY_MS })).toMatchObject({ heldUntil: null, deleted: [{ path }] })
    expect(JSON.parse(readFileSync(retentionStatePath(vault), 'utf8'))).toEqual({
      last_run_utc: '2026-12-20T12:30:00.000Z',
      held_until_utc: null
    })
  }
)

test('hours are deleted also when the state cannot be stored, and that is told', async () => {
  mkdirSync(retentionStatePath(vault), { recursive: true })
  const path = put(hourAgo(150), lines(1))
  const report = await run()
  expect(report.deleted).toMatchObject([{ path }])
  expect(report.failed).toMatchObject([{ path: retentionStatePath(vault) }])
})

test('a second run at once changes nothing, not even the state', async () => {
  await run()
  const before = statSync(retentionStatePath(vault))
  await run({ nowMs: NOW + 60_000 })
  expect(statSync(retentionStatePath(vault)).ino).toBe(before.ino)
  await run({ nowMs: NOW + HOUR_MS })
  expect(statSync(retentionStatePath(vault)).ino).not.toBe(before.ino)
})

test('a compressed file is as private as the plain one was', async () => {
  const path = put(hourAgo(9), lines(1))
  const { mode } = statSync(path)
  await run()
  expect(statSync(`${path}.gz`).mode & 0o077).toBe(mode & 0o077)
})

test('ages that could hit a running capture are refused, and so is a vault that is not there', async () => {
  for (const ages of [
    { compressAfterMs: 599_999 },
    { compressAfterMs: 600_000, deleteAfterMs: 0 },
    { deleteAfterMs: HOUR_MS }
  ]) {
    await expect(run(ages)).rejects.toMatchObject({ code: 'USAGE' })
  }
  await expect(runRetention(join(folder, 'none'), { nowMs: NOW })).rejects.toMatchObject({ code: 'VAULT' })
  expect(existsSync(join(folder, 'none'))).toBe(false)
})

test('one retention at a time', async () => {
  const lock = acquireLock(retentionLockPath(vault), { command: 'test', nowMs: NOW })
  await expect(run()).rejects.toMatchObject({ code: 'LOCKED' })
  expect((await run({ dryRun: true })).failed).toEqual([])
  lock.release()
  await run()
  expect(existsSync(retentionLockPath(vault))).toBe(false)
})

/** Runs a command as a user would; what it printed. */
async function command(name: 'retention' | 'repair', ...args: string[]): Promise<string> {
  let printed = ''
  vi.spyOn(process.stdout, 'write').mockImplementation(text => {
    printed += String(text)
    return true
  })
  const built = name === 'retention' ? retentionCommand() : repairCommand()
  await built.exitOverride().parseAsync(['--vault', vault, ...args], { from: 'user' })
  return printed
}

test('the command names every mistake at once and starts nothing', async () => {
  vi.setSystemTime(NOW)
  const path = put(hourAgo(9), lines(1))
  const wrong = [
    '--compress-after',
    'banana',
    '--delete-after',
    '1s',
    '--exchange',
    'nyse',
    '--symbol',
    'BTC-USDT-SWAP,IBM'
  ]
  const error = await command('retention', ...wrong).catch(thrown => thrown)
  expect(error).toMatchObject({ code: 'USAGE', exit: 2 })
  for (const word of ['banana', '--delete-after', 'nyse', 'IBM']) expect(error.message).toContain(word)
  expect(existsSync(path)).toBe(true)
  vi.useRealTimers()
})

test('the commands print JSON or text, and fail after the report', async () => {
  vi.setSystemTime(NOW)
  put(hourAgo(9), lines(1))
  expect(JSON.parse(await command('retention', '--json'))).toMatchObject({
    compressed: [{ joined: false }],
    failed: []
  })
  put(hourAgo(10), `${lines(1)}half`)
  expect(await command('repair', '--dry-run')).toContain('would be: 1 examined, 1 repaired')
  expect(JSON.parse(await command('repair', '--json'))).toMatchObject({ repaired: [{ movedBytes: 4 }] })
  put(`${hourAgo(10)}.gz`, Buffer.from('no gzip'))
  await expect(command('retention')).rejects.toMatchObject({
    code: 'VAULT',
    exit: 1,
    message: expect.stringContaining('damaged')
  })
  vi.useRealTimers()
})

test('the vault comes from the environment when it is set', () => {
  vi.stubEnv('L3CAP_VAULT', '')
  expect(defaultVault()).toBe('./vault')
  vi.stubEnv('L3CAP_VAULT', '/data/vault')
  expect(defaultVault()).toBe('/data/vault')
})
