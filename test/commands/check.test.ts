import { type ChildProcess, execFile, spawn } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type CheckReport, runCheck } from '../../src/commands/check-run.ts'
import { lockPath } from '../../src/vault/layout.ts'
import { acquireLock, type Lock } from '../../src/vault/lock.ts'
import { until } from '../faults/harness.ts'
import { ensureBuilt } from '../helpers/vault.ts'

const CLI = resolve('bin/l3cap.js')
let folder: string
let vault: string
let copies = 0

function l3cap(...given: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise(done => {
    execFile(process.execPath, [CLI, ...given], { timeout: 60_000, maxBuffer: 1e8 }, (error, stdout, stderr) => {
      done({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr })
    })
  })
}

/** A capture of a simulated exchange that runs until it is told to end. */
function startCapture(where: string): ChildProcess {
  const words = ['run', '--simulate', '--vault', where, '--log-dir', join(folder, 'logs'), '--cadence', '200ms']
  return spawn(process.execPath, [CLI, ...words], { stdio: 'ignore' })
}

/** The only file of a feed; `ending` names another kind. */
function fileOf(where: string, feed: string, ending = '.jsonl'): string {
  const root = join(where, 'raw', 'bitfinex', feed)
  const found = readdirSync(root, { recursive: true, withFileTypes: true }).filter(
    entry => entry.isFile() && entry.name.endsWith(ending)
  )
  return join(found[0]!.parentPath, found[0]!.name)
}

function copyVault(): string {
  const copy = join(folder, `copy-${++copies}`)
  cpSync(vault, copy, { recursive: true })
  return copy
}

const check = (where: string, more: Partial<Parameters<typeof runCheck>[0]> = {}) =>
  runCheck({ vault: where, exchanges: [], names: [], deep: false, jobs: 1, nowMs: Date.now(), ...more })

const errors = ({ findings }: CheckReport) => findings.filter(({ severity }) => severity === 'error')

beforeAll(async () => {
  ensureBuilt()
  folder = mkdtempSync(join(tmpdir(), 'l3cap-check-'))
  vault = join(folder, 'vault')
  const where = ['--vault', vault, '--log-dir', join(folder, 'logs')]
  const run = await l3cap('run', '--simulate', ...where, '--duration', '2500ms', '--cadence', '200ms')
  expect(run.code, run.stderr).toBe(0)
}, 60_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('the command', () => {
  it('says that all is right, with exit 0, in one thread and in several', async () => {
    for (const jobs of ['1', '2']) {
      const { code, stdout, stderr } = await l3cap('check', '--vault', vault, '--deep', '--jobs', jobs)
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).toMatch(/^checked 1 instrument, \d files, [\d.]+ MB in [\d.]+ s: 0 errors, \d+ warnings?\n$/m)
    }
  }, 60_000)

  it('names what is wrong, with exit 1; nothing in a file reaches the terminal as it is', async () => {
    const copy = copyVault()
    appendFileSync(fileOf(copy, 'trades'), '{"timestamp_utc":"\u001b[2J\n')
    const { code, stdout, stderr } = await l3cap('check', '--vault', copy)
    expect(code).toBe(1)
    expect(stdout).toMatch(/^raw\/bitfinex\/trades\/BTCUSD\/[\d-]+\/\d\d\.jsonl:\d+: error (?:torn_line|bad_json): /m)
    expect(stdout + stderr).not.toContain('\u001b')
    expect(stderr).toContain('1 error')
    const json = await l3cap('check', '--vault', copy, '--json')
    const report = JSON.parse(json.stdout) as CheckReport
    expect(json.code).toBe(1)
    expect(report.counts).toMatchObject({ errors: 1 })
    expect(Object.keys(report)).toEqual(['vault', 'at', 'from', 'to', 'findings', 'counts', 'stats'])
  }, 60_000)

  it.each([
    [['--since', 'never'], '--since'],
    [['--from', '2026-13-01'], '--from'],
    [['--from', '2026-11-20', '--to', '2026-11-19'], '--from must lie before --to'],
    [['--since', '1h', '--from', '2026-11-20'], 'exclude each other'],
    [['--since', '1h', '--to', '2026-11-19'], '--since must lie before --to'],
    [['--live', '--deep'], 'exclude each other'],
    [['--jobs', '0'], '--jobs'],
    [['--exchange', 'nowhere'], '--exchange nowhere'],
    [['--symbol', 'DOGE'], '--symbol DOGE'],
    [['--vault', '/nowhere/at/all'], 'there is no /nowhere/at/all']
  ])('refuses %j', async (words, message) => {
    const { code, stderr } = await l3cap('check', '--vault', vault, ...words)
    expect(code).toBe(2)
    expect(stderr).toContain(message)
  })
})

describe('a check', () => {
  it('raises an alert for a vault that is not there, if it has whom to tell', async () => {
    const gone = join(folder, 'gone')
    const { code, stderr } = await l3cap(
      'check',
      '--vault',
      gone,
      '--exchange',
      'okx',
      '--webhook',
      'http://127.0.0.1:9/'
    )
    expect(code).toBe(1)
    expect(stderr).toContain('webhook: ')
    expect(stderr).toContain(`there is no ${gone}`)
    expect(existsSync(gone)).toBe(false)
  })

  it('says that there is nothing', async () => {
    const empty = mkdtempSync(join(folder, 'empty-'))
    expect(errors(await check(empty)).map(({ rule }) => rule)).toEqual(['no_data'])
  })

  it('looks at a range', async () => {
    const copy = copyVault()
    const path = fileOf(copy, 'trades')
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n')
    const at = lines.length >> 1
    const us = (line: string) => Number(/"recv_us":(\d+)/.exec(line)![1])
    lines[at] = lines[at]!.replace('"side"', '"sid"')
    writeFileSync(path, `${lines.join('\n')}\n`)
    const first = us(lines[0]!)
    expect(errors(await check(copy, { fromUs: first, toUs: us(lines.at(-1)!) }))).toMatchObject([
      { rule: 'bad_record', line: at + 1 }
    ])
    expect(errors(await check(copy, { toUs: us(lines[at - 1]!) }))).toEqual([])
    expect(errors(await check(copy, { fromUs: us(lines[at + 1]!) + 1 }))).toEqual([])
  })

  it('needs nothing but the files, and changes none of a vault that it may not write', async () => {
    const copy = copyVault()
    rmSync(join(copy, 'meta'), { recursive: true })
    const entries = readdirSync(copy, { recursive: true, withFileTypes: true })
    for (const entry of entries) chmodSync(join(entry.parentPath, entry.name), entry.isDirectory() ? 0o555 : 0o444)
    expect(errors(await check(copy, { deep: true }))).toEqual([])
    expect(existsSync(join(copy, 'meta'))).toBe(false)
    for (const entry of entries) if (entry.isDirectory()) chmodSync(join(entry.parentPath, entry.name), 0o755)
  })

  it('reads a compressed hour as it reads a plain one', async () => {
    const copy = copyVault()
    for (const feed of ['frames', 'l3_events', 'l3_spot', 'trades', 'status']) {
      const path = fileOf(copy, feed)
      writeFileSync(`${path}.gz`, gzipSync(readFileSync(path)))
      unlinkSync(path)
    }
    const [plain, compressed] = [await check(vault, { deep: true }), await check(copy, { deep: true })]
    expect(errors(compressed)).toEqual([])
    expect(compressed.stats).toMatchObject({ lines: plain.stats.lines, bytes: plain.stats.bytes })
  })

  it('takes younger lines in the plain file of a compressed hour for what a restart leaves', async () => {
    const copy = copyVault()
    for (const feed of ['frames', 'l3_events', 'l3_spot', 'trades', 'status']) {
      const path = fileOf(copy, feed)
      const lines = readFileSync(path, 'utf8').split('\n')
      const half = lines.length >> 1
      writeFileSync(`${path}.gz`, gzipSync(`${lines.slice(0, half).join('\n')}\n`))
      writeFileSync(path, lines.slice(half).join('\n'))
    }
    expect(errors(await check(copy, { deep: true }))).toEqual([])
    // The whole of it beside a part of it is each line of the part twice.
    const trades = fileOf(copy, 'trades')
    writeFileSync(trades, readFileSync(fileOf(vault, 'trades')))
    expect(errors(await check(copy, { deep: true }))).toMatchObject([{ rule: 'doubled_hour', line: 1 }])
  })

  it('asks for no frames of a process that kept none, before and behind one that did', async () => {
    const part = join(folder, 'part')
    const where = ['--vault', part, '--log-dir', join(folder, 'logs'), '--cadence', '100ms', '--duration', '1s']
    for (const more of [['--no-frames'], [], ['--no-frames']])
      expect((await l3cap('run', '--simulate', ...where, ...more)).code).toBe(0)
    expect((await check(part, { deep: true })).findings.filter(({ severity }) => severity !== 'info')).toEqual([])
  })

  it('misses frames that its records come from, unless none were kept', async () => {
    const copy = copyVault()
    const frames = fileOf(copy, 'frames')
    unlinkSync(frames)
    for (const deep of [false, true]) {
      const { findings } = await check(copy, { deep })
      const told = findings
        .filter(({ severity }) => severity === 'error')
        .map(({ rule, file }) => [rule, join(copy, file)])
      expect(told).toEqual([['missing_feed', frames]])
    }
    const status = fileOf(copy, 'status')
    const text = readFileSync(status, 'utf8')
    expect(text).toContain('"frames":true')
    writeFileSync(status, text.replace('"frames":true', '"frames":false'))
    expect((await check(copy)).counts.errors).toBe(0)
  })

  it('keeps a thousand findings of a rule and file, and counts the others', async () => {
    const copy = copyVault()
    appendFileSync(fileOf(copy, 'trades'), 'x\n'.repeat(1500))
    const { findings, counts } = await check(copy)
    expect(counts).toMatchObject({ errors: 1500 })
    expect(findings.filter(({ severity }) => severity === 'error')).toHaveLength(1000)
  })
})

it('computes the checksums of the exchange anew, without being asked to compare everything', async () => {
  const copy = copyVault()
  const path = fileOf(copy, 'frames')
  const lines = readFileSync(path, 'utf8').split('\n')
  // The image, which a checksum follows at once: the best bid of it gets another size.
  const image = lines.findIndex(line => line.includes('"msg":[') && line.includes(',[['))
  const [, orders] = JSON.parse(lines[image]!).msg as [number, [id: number, price: number, size: number][]]
  const bids = orders.filter(([, , size]) => size > 0)
  const [id, price, size] = bids.reduce((a, b) => (b[1] > a[1] ? b : a))
  lines[image] = lines[image]!.replace(`[${id},${price},${size}]`, `[${id},${price},${size}1]`)
  writeFileSync(path, lines.join('\n'))
  const found = errors(await check(copy))
  expect(found).toMatchObject([{ rule: 'checksum_mismatch', feed: 'frames' }])
  expect(found[0]!.line).toBeGreaterThan(image)
})

describe('what a running process writes', () => {
  let copy: string
  let lock: Lock
  let endMs: number
  beforeEach(() => {
    copy = copyVault()
    const frames = readFileSync(fileOf(copy, 'frames'), 'utf8').trimEnd().split('\n')
    endMs = Math.ceil(Number(/"recv_us":(\d+)/.exec(frames.at(-1)!)![1]) / 1000)
    lock = acquireLock(lockPath(copy, 'bitfinex', 'BTCUSD'), { command: 'test', nowMs: endMs })
  })
  afterEach(() => lock.release())

  it('may end with half a line', async () => {
    appendFileSync(fileOf(copy, 'l3_events'), '{"timestamp_utc":"20')
    expect(errors(await check(copy, { nowMs: endMs + 10_000 }))).toEqual([])
    lock.release()
    expect(errors(await check(copy, { nowMs: endMs + 10_000 }))).toMatchObject([{ rule: 'torn_line' }])
  })

  it('is left alone for 2 s', async () => {
    const path = fileOf(copy, 'l3_spot')
    const lines = readFileSync(path, 'utf8').split('\n')
    writeFileSync(path, `${lines.slice(0, -2).join('\n')}\n`)
    expect(errors(await check(copy, { deep: true, nowMs: endMs + 100 }))).toEqual([])
    expect(errors(await check(copy, { deep: true, nowMs: endMs + 10_000 }))).toMatchObject([{ rule: 'not_rebuilt' }])
  })
})

it('finds nothing while a capture writes, half lines or not, and a killed one as soon as it is dead', async () => {
  const where = join(folder, 'running')
  const capture = startCapture(where)
  const ended = new Promise(done => capture.once('exit', done))
  try {
    const shots = () =>
      existsSync(join(where, 'raw', 'bitfinex', 'l3_spot')) && readFileSync(fileOf(where, 'l3_spot')).length > 100_000
    await until(shots, () => 'no snapshots', 30_000)
    for (let round = 0; round < 3; round++) {
      expect(errors(await check(where, { deep: true }))).toEqual([])
      expect(errors(await check(where, { live: true }))).toEqual([])
    }
  } finally {
    capture.kill('SIGKILL')
    await ended
  }
  expect(errors(await check(where, { live: true }))).toMatchObject([{ rule: 'dead_capture', exchange: 'bitfinex' }])
  // What a death leaves is no error of the data.
  expect(errors(await check(where, { deep: true, nowMs: Date.now() + 10_000 }))).toEqual([])
}, 60_000)
