import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { type FaultKind, randomFaults } from '../../src/simulator/simulator.ts'
import { live, onStage, type Stage, USUAL, until, wishes } from './harness.ts'
import { hourFiles, LOSS_MS_MAX } from './oracle.ts'

const TIMEOUT = { timeout: 120_000 }
/** Faults that a capture gets over within a second or two. */
const QUICK_FAULTS: readonly FaultKind[] = ['drop', 'duplicate', 'reorder', 'corrupt-checksum', 'close']

/** Lets faults happen on the wire for some milliseconds from now on. */
function trouble(stage: Stage, ms: number): void {
  for (const [at, simulator] of stage.simulators.entries()) {
    const seed = stage.random.integer(1_000_000)
    for (const fault of randomFaults(seed, 4, ms, USUAL[at]!.symbols, QUICK_FAULTS)) simulator.inject(fault)
  }
}

/** The shift that puts the full hour so many milliseconds ahead of now. */
function shiftToHour(aheadMs: number): number {
  return 3_600_000 - (Date.now() % 3_600_000) - aheadMs
}

/** A last life that ends cleanly; after it the vault must be right. */
async function settle(stage: Stage, clockShiftMs = 0, rebuild = true): Promise<void> {
  const last = stage.start({ clockShiftMs })
  await last.heard(60)
  expect(await last.stop(), stage.about(last.output.slice(-2000))).toBe(0)
  const { findings, figures } = stage.judge(rebuild)
  expect(findings).toEqual([])
  expect(figures.frames, stage.about('frames')).toBeGreaterThan(0)
}

describe('kill -9 at any moment', () => {
  const { seeds, isLong } = wishes('kills', { seed: 11, runs: 2 })
  if (seeds.length === 0) test('is not asked for', () => undefined)
  for (const seed of seeds) {
    test.concurrent(`loses a moment and says so (seed ${seed})`, TIMEOUT, () =>
      onStage({ seed, kind: 'kills', eventsPerSecond: 100 }, async stage => {
        const { random } = stage
        const clockShiftMs = seed % 2 === 0 ? shiftToHour(4000) : 0
        for (let kills = 3; kills > 0; kills--) {
          const running = stage.start({ clockShiftMs })
          trouble(stage, 2500)
          // Some deaths come before the first connection, most of them while books are live.
          if (random.next() < 0.2) await live(random.integer(900))
          else {
            await running.heard()
            await live(200 + random.integer(isLong ? 4000 : 1500))
          }
          await running.kill()
        }
        await settle(stage, clockShiftMs)
      })
    )
  }
})

describe('a power cut at any moment', () => {
  const { seeds, isLong } = wishes('power', { seed: 21, runs: 2 })
  if (seeds.length === 0) test('is not asked for', () => undefined)
  for (const seed of seeds) {
    const mode = seed % 2 === 0 ? 'strict' : 'mixed'
    test.concurrent(`loses what was not synced and says so (seed ${seed}, ${mode})`, TIMEOUT, () =>
      onStage({ seed, kind: 'power', eventsPerSecond: 100 }, async stage => {
        for (let cut = 0; cut < (isLong ? 3 : 2); cut++) {
          const running = stage.start({ journal: true })
          trouble(stage, 2500)
          await running.heard()
          // Only what lived for longer than it may lose shows that it was synced at all: its names are new, too.
          const leastMs = cut === 0 ? LOSS_MS_MAX.power + 300 : 100
          await live(leastMs + stage.random.integer(isLong ? 6000 : 2500))
          await running.cut(stage.random, mode)
        }
        await settle(stage)
      })
    )
  }
})

const HOUR_MS = 3_600_000

/** Puts an hour of made-up trades into a vault: so many hours ago, numbered from `first`. */
function putHour(vault: string, name: string, hoursAgo: number, first: number, count: number, end = '.jsonl'): void {
  const us = (Math.floor(Date.now() / HOUR_MS) - hoursAgo) * HOUR_MS * 1000
  const moment = new Date(us / 1000).toISOString()
  const path = join(vault, 'raw/okx/trades', name, moment.slice(0, 10), moment.slice(11, 13) + end)
  mkdirSync(dirname(path), { recursive: true })
  const lines = Array.from({ length: count }, (_, at) => `{"recv_us":${us + at},"trade_id":"${first + at}"}\n`).join('')
  writeFileSync(path, end.endsWith('.gz') ? gzipSync(lines) : lines)
}

/** Old hours of every sort that retention meets, and a half-written tail for a repair. */
function putOldVault(vault: string): void {
  putHour(vault, 'A', 30, 1000, 200)
  putHour(vault, 'A', 31, 2000, 200, '.jsonl.gz')
  putHour(vault, 'A', 31, 2200, 50)
  putHour(vault, 'B', 32, 3000, 100, '.jsonl.gz')
  putHour(vault, 'B', 32, 3000, 100)
  putHour(vault, 'B', 200, 4000, 10)
  putHour(vault, 'C', 2, 5000, 20)
  const [torn] = hourFiles(vault, 'okx', 'trades', 'C')
  writeFileSync(torn!, '{"recv_us":17', { flag: 'a' })
}

/** Everything that a vault holds below `raw`, compressed or not, and the names of its files. */
function contentOf(vault: string): Record<string, string> {
  const files = readdirSync(join(vault, 'raw'), { recursive: true, withFileTypes: true }).filter(each => each.isFile())
  return Object.fromEntries(
    files.sort().map(entry => {
      const path = join(entry.parentPath, entry.name)
      const bytes = readFileSync(path)
      return [path.slice(vault.length), (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString()]
    })
  )
}

describe('kill -9 before and after each call of the file system', () => {
  const { seeds, isLong } = wishes('steps', { seed: 1, runs: 1 })
  if (seeds.length === 0) test('is not asked for', () => undefined)
  for (const command of seeds.length > 0 ? ['retention', 'repair'] : []) {
    test.concurrent(`of ${command}, which then ends well`, { timeout: 1_800_000 }, () =>
      onStage({ seed: seeds[0]!, kind: 'steps', exchanges: [] }, async stage => {
        const words = [command, '--vault', stage.vault]
        const begin = () => {
          rmSync(stage.vault, { recursive: true, force: true })
          putOldVault(stage.vault)
        }
        begin()
        const { counts, code, output } = await stage.command(words)
        expect(code, output).toBe(0)
        const wanted = contentOf(stage.vault)
        const calls = counts.any ?? 0
        expect(calls).toBeGreaterThan(5)
        const step = isLong ? 1 : Math.ceil(calls / 3)
        let tries = 0
        let deaths = 0
        for (let call = 1 + stage.random.integer(step); call <= calls; call += step) {
          for (const kill of isLong
            ? (['before', 'after'] as const)
            : [stage.random.pick(['before', 'after'] as const)]) {
            begin()
            const broken = await stage.command(words, { disk: [{ kind: 'any', from: call, to: call, kill }] })
            // How a stream is cut into calls varies: the last of them may not come.
            tries++
            if (broken.signal === 'SIGKILL') deaths++
            else expect(broken.code, `${kill} call ${call} of ${calls}: ${broken.output}`).toBe(0)
            const again = await stage.command(words)
            expect(again.code, `after a kill ${kill} call ${call} of ${calls}: ${again.output}`).toBe(0)
            const { torn, ...rest } = withoutTorn(contentOf(stage.vault))
            expect(rest, `killed ${kill} call ${call} of ${calls}`).toEqual(withoutTorn(wanted, false))
            // A tail may stand twice beside its file, and never nowhere.
            expect(torn.every(text => text.includes('{"recv_us":17'))).toBe(true)
          }
        }
        expect(deaths).toBeGreaterThan(tries / 2)
      })
    )
  }

  for (const seed of seeds) {
    test.concurrent(`of a start after a crash (seed ${seed})`, { timeout: 3_600_000 }, () =>
      onStage({ seed, kind: 'steps' }, async stage => {
        const first = stage.start({ disk: [] })
        await first.heard(60)
        await first.kill()
        const counter = stage.start({ disk: [] })
        await counter.heard(20)
        await counter.stop()
        const calls = isLong ? 120 : 3
        for (let at = 0; at < calls; at++) {
          const call = isLong ? at + 1 : 1 + stage.random.integer(80)
          tear(stage)
          const kill = stage.random.pick(['before', 'after'] as const)
          const running = stage.start({ disk: [{ kind: 'any', from: call, kill }] })
          await running.exit()
        }
        // Whatever dies while it replaces a small file leaves the old one or the new one, never a part.
        const known = join(stage.vault, 'meta/okx/instruments/BTC-USDT-SWAP.json')
        writeFileSync(known, JSON.stringify({ ...JSON.parse(readFileSync(known, 'utf8')), tickSize: 'another' }))
        const dying = stage.start({ disk: [{ kind: 'write', path: 'meta/okx/instruments/.*json', kill: 'before' }] })
        await dying.exit()
        expect(dying.signal, stage.about(dying.output)).toBe('SIGKILL')
        for (const path of readdirSync(join(stage.vault, 'meta'), { recursive: true }) as string[]) {
          if (!path.endsWith('.json')) continue
          const text = readFileSync(join(stage.vault, 'meta', path), 'utf8')
          expect(() => JSON.parse(text), stage.about(`${path}: ${text}`)).not.toThrow()
        }
        await settle(stage)
      })
    )
  }
})

function withoutTorn(content: Record<string, string>, split = true): Record<string, string> & { torn: string[] } {
  const torn = Object.keys(content).filter(path => path.endsWith('.torn'))
  const rest = Object.fromEntries(Object.entries(content).filter(([path]) => !path.endsWith('.torn')))
  return (split ? { ...rest, torn: torn.map(path => content[path]!) } : rest) as never
}

/** Writes half a line behind the newest hour of some streams, as a killed process may leave it. */
function tear(stage: Stage): void {
  for (const [exchange, feed, name] of [
    ['okx', 'frames', 'okx-1'],
    ['okx', 'trades', 'BTC-USDT-SWAP'],
    ['bitfinex', 'l3_events', 'BTCUSD']
  ] as const) {
    const path = hourFiles(stage.vault, exchange, feed, name).at(-1)
    if (path) writeFileSync(path, stage.random.pick(['{"recv_us":17', '{"timesta\0\0\0', '\0\0\0\0']), { flag: 'a' })
  }
}

/** How often an event stands in the status of an instrument. */
function countOf(stage: Stage, event: string): number {
  const text = hourFiles(stage.vault, 'okx', 'status', 'BTC-USDT-SWAP')
    .map(path => readFileSync(path, 'utf8'))
    .join('')
  return text.split(`"event":"${event}"`).length - 1
}

describe('a signal', () => {
  const { seeds, isLong } = wishes('signals', { seed: 31, runs: 1 })
  if (seeds.length === 0) test('is not asked for', () => undefined)
  for (const seed of seeds) {
    test.concurrent(`at a start ends it in order, or before it began (seed ${seed})`, TIMEOUT, () =>
      onStage({ seed, kind: 'signals' }, async stage => {
        for (let starts = isLong ? 20 : 2; starts > 0; starts--) {
          const running = stage.start()
          await live(100 + stage.random.integer(700))
          const code = await running.stop(stage.random.pick(['SIGTERM', 'SIGINT'] as const))
          // Before the program has taken the signal over, the system ends it; nothing has begun then.
          if (code !== 0) expect(running.signal, stage.about(running.output)).not.toBeNull()
          else expect(countOf(stage, 'stopped'), stage.about('stopped')).toBe(countOf(stage, 'started'))
        }
        await settle(stage)
        expect(countOf(stage, 'stopped'), stage.about('stopped')).toBe(countOf(stage, 'started'))
      })
    )

    test.concurrent(`while it reconnects ends it in order (seed ${seed})`, TIMEOUT, () =>
      onStage({ seed, kind: 'signals' }, async stage => {
        const running = stage.start()
        await running.heard()
        for (const simulator of stage.simulators) simulator.inject({ kind: 'close', code: 1012 })
        await live(stage.random.integer(800))
        const beganMs = performance.now()
        expect(await running.stop('SIGINT'), stage.about(running.output)).toBe(0)
        expect(performance.now() - beganMs, stage.about('time to stop')).toBeLessThan(8000)
        await settle(stage)
      })
    )

    test.concurrent(`given twice ends it at once, as a crash does (seed ${seed})`, TIMEOUT, () =>
      onStage({ seed, kind: 'signals' }, async stage => {
        // A disk that takes its time keeps the first signal busy.
        const running = stage.start({ disk: [{ kind: 'sync', path: 'raw/', stallMs: 1500 }], lossMsMax: 5000 })
        await running.heard()
        running.child.kill('SIGTERM')
        await live(150)
        running.child.kill('SIGTERM')
        await running.exit()
        if (running.code !== 0) expect(running.signal, stage.about(running.output)).toBe('SIGKILL')
        const hangup = stage.start()
        await hangup.heard()
        expect(await hangup.stop('SIGHUP'), stage.about(hangup.output)).toBe(0)
        await settle(stage)
      })
    )
  }
})

describe('a process that stands still and goes on', () => {
  const { seeds, isLong } = wishes('pause', { seed: 41, runs: 1 })
  if (seeds.length === 0) test('is not asked for', () => undefined)
  for (const seed of seeds) {
    test.concurrent(`loses nothing that waited in its sockets (seed ${seed})`, TIMEOUT, () =>
      onStage({ seed, kind: 'pause', eventsPerSecond: 100 }, async stage => {
        const running = stage.start()
        await running.heard(80)
        process.kill(running.pid, 'SIGSTOP')
        const stoppedUs = Date.now() * 1000
        await live(isLong ? 30_000 : 2500)
        const continuedUs = Date.now() * 1000
        process.kill(running.pid, 'SIGCONT')
        const before = stage.sources[1]!.count(1)
        await until(
          () => stage.sources[1]!.count(1) > before + 30,
          () => stage.about('frames after the pause')
        )
        expect(await running.stop(), stage.about(running.output.slice(-2000))).toBe(0)
        expect(stage.judge(true).findings).toEqual([])
        const times = hourFiles(stage.vault, 'okx', 'frames', 'okx-1')
          .flatMap(path => readFileSync(path, 'utf8').split('\n').filter(Boolean))
          .map(line => (JSON.parse(line) as { recv_us: number }).recv_us)
        // Nothing claims to have been received while nobody could receive.
        const [from, to] = [stoppedUs + 300_000, continuedUs - 100_000]
        expect(
          times.filter(us => us > from && us < to),
          stage.about('received in the pause')
        ).toEqual([])
      })
    )
  }
})

describe('two writers', () => {
  const { seeds } = wishes('writers', { seed: 51, runs: 1 })
  if (seeds.length === 0) test('is not asked for', () => undefined)
  for (const seed of seeds) {
    test.concurrent(`of one vault: the second is refused (seed ${seed})`, TIMEOUT, () =>
      onStage({ seed, kind: 'writers' }, async stage => {
        const first = stage.start()
        await first.heard()
        const second = stage.start()
        expect(await second.exit(), stage.about(second.output)).toBe(3)
        expect(second.output).toMatch(/is being written by another process: pid \d+/)
        expect(await first.stop(), stage.about(first.output.slice(-2000))).toBe(0)
        // The lock of a dead process of this host, whose number somebody else may have by now.
        const lock = join(stage.vault, 'meta/okx/locks/BTC-USDT-SWAP.lock')
        const owner = {
          pid: 1,
          host: hostname(),
          startTicks: '1',
          boot: null,
          run: randomUUID(),
          command: 'run',
          since: ''
        }
        writeFileSync(lock, JSON.stringify(owner))
        await settle(stage)
        writeFileSync(lock, JSON.stringify({ ...owner, host: 'elsewhere' }))
        const other = stage.start()
        expect(await other.exit(), stage.about(other.output)).toBe(3)
        expect(other.output).toMatch(/elsewhere.*delete/s)
        rmSync(lock)
        await settle(stage)
      })
    )
  }
})

/** What a crash, a full disk or a hand may leave in place of a small file. */
const DAMAGES: Record<string, (path: string) => void> = {
  empty: path => writeFileSync(path, ''),
  NULs: path => writeFileSync(path, Buffer.alloc(300)),
  'half a JSON': path => writeFileSync(path, '{"pid":12,"host":"el'),
  'other bytes': path => writeFileSync(path, Buffer.from([0xff, 0xfe, 0x00, 0x80, 0x0a])),
  'another JSON': path => writeFileSync(path, '[1,null]')
}

/** Whether a file holds one JSON object. */
function isWhole(path: string): boolean {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return typeof value === 'object' && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}

describe('damaged health, lock and metadata files', () => {
  const { seeds, isLong } = wishes('state', { seed: 61, runs: 1 })
  if (seeds.length === 0) test('is not asked for', () => undefined)
  for (const seed of seeds) {
    test.concurrent(
      `do not keep a capture from starting, and are whole again (seed ${seed})`,
      { timeout: 240_000 },
      () =>
        onStage({ seed, kind: 'state' }, async stage => {
          const first = stage.start()
          await first.heard()
          await first.kill()
          const files = readdirSync(join(stage.vault, 'meta'), { recursive: true, withFileTypes: true })
            .filter(entry => entry.isFile())
            .map(entry => join(entry.parentPath, entry.name))
          expect(files.filter(path => path.endsWith('.lock')).length).toBe(6)
          const all = Object.values(DAMAGES)
          for (let at = 0; at < (isLong ? all.length : 2); at++) {
            for (const path of files) {
              const damage = isLong ? all[at]! : stage.random.pick(all)
              damage(path)
              // A damaged lock is taken over ten seconds after it was begun.
              const old = Date.now() / 1000 - 20
              utimesSync(path, old, old)
            }
            const running = stage.start()
            await running.heard()
            const damaged = () => files.filter(each => existsSync(each) && !isWhole(each))
            await until(
              () => damaged().length === 0,
              () => stage.about(`still damaged: ${damaged().join()}`)
            )
            await running.kill()
          }
          await settle(stage)
        })
    )

    test.concurrent(`may be directories (seed ${seed})`, TIMEOUT, () =>
      onStage({ seed, kind: 'state' }, async stage => {
        const first = stage.start()
        await first.heard()
        expect(await first.stop()).toBe(0)
        for (const path of ['okx/health/okx-1.json', 'okx/instruments/BTC-USDT-SWAP.json']) {
          rmSync(join(stage.vault, 'meta', path), { force: true })
          mkdirSync(join(stage.vault, 'meta', path, 'inner'), { recursive: true })
        }
        await settle(stage)
      })
    )
  }
})
