import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { HOUR_US, hourOf } from '../../src/core/time.ts'
import { hourPath } from '../../src/vault/layout.ts'
import { VaultWriter } from '../../src/vault/writer.ts'

/** A disk with moods: how many of so many bytes it takes (may throw), and what it says to other calls. */
const disk = vi.hoisted(() => ({
  takes: undefined as ((bytes: number) => number) | undefined,
  refuses: undefined as 'open' | 'mkdir' | 'fdatasync' | 'close' | undefined,
  /** While set, writes wait for it. */
  hangs: undefined as Promise<void> | undefined,
  /** While set, syncs wait for it. */
  sleeps: undefined as Promise<void> | undefined,
  paths: new Map<number, string>(),
  written: [] as string[]
}))

vi.mock('node:fs', async importOriginal => {
  const original = await importOriginal<typeof import('node:fs')>()
  type Done = (error: Error | null, value?: unknown) => void
  const refusable =
    (kind: 'open' | 'mkdir' | 'fdatasync' | 'close') =>
    (...args: unknown[]): void => {
      const done = args.at(-1) as Done
      const refused = disk.refuses === kind
      if (refused && kind !== 'close') return void setImmediate(done, new Error(`EIO: i/o error, ${kind}`))
      if (kind === 'fdatasync' && disk.sleeps) return void disk.sleeps.then(() => done(null))
      const call = original[kind] as unknown as (...args: unknown[]) => void
      call(...args.slice(0, -1), (error: Error | null, value?: unknown) => {
        if (kind === 'open' && !error) disk.paths.set(value as number, String(args[0]))
        done(refused ? new Error(`EIO: i/o error, ${kind}`) : error, value)
      })
    }
  return {
    ...original,
    open: refusable('open'),
    mkdir: refusable('mkdir'),
    fdatasync: refusable('fdatasync'),
    close: refusable('close'),
    write(file: number, bytes: Buffer, offset: number, length: number, place: null, done: Done): void {
      const act = () => {
        let taken: number
        try {
          taken = disk.takes ? disk.takes(length) : length
        } catch (error) {
          return void setImmediate(done, error as Error)
        }
        if (taken === 0) return void setImmediate(done, null, 0)
        disk.written.push(disk.paths.get(file)!)
        original.write(file, bytes, offset, taken, place, done)
      }
      if (disk.hangs) void disk.hangs.then(act)
      else act()
    }
  }
})

const START = Date.UTC(2026, 10, 20, 10, 59, 59) * 1000
let folder: string
let told: string[]
let writer: VaultWriter

function makeWriter(pendingMax = 1_000_000): VaultWriter {
  return new VaultWriter(folder, {
    pendingMax,
    onPause: reason => void told.push(`paused ${reason}`),
    onResume: waited => void told.push(`resumed ${waited}`),
    onSlowSync: path => void told.push(`slow ${path.slice(-8)}`),
    onMissing: (path, bytes) => void told.push(`missing ${bytes} of ${path.slice(-8)}`)
  })
}

function full(): never {
  throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
}

async function flush(one: VaultWriter): Promise<void> {
  one.flush()
  await one.drain()
}

async function retry(one: VaultWriter): Promise<void> {
  one.retry()
  await one.drain()
}

/** Everything on disk, by path. */
function stored(): Record<string, string> {
  if (!existsSync(folder)) return {}
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  return Object.fromEntries(
    files.map(entry => {
      const path = join(entry.parentPath, entry.name)
      return [relative(folder, path).replaceAll('\\', '/'), readFileSync(path, 'utf8')]
    })
  )
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-writer-'))
  told = []
  disk.takes = disk.refuses = disk.hangs = disk.sleeps = undefined
  disk.written.length = 0
  writer = makeWriter()
})
// A run of the property below may have removed it and written nothing.
afterEach(() => rmSync(folder, { recursive: true, force: true }))

it('a line goes to the hour of its own receive time', async () => {
  const trades = writer.stream('okx', 'trades', 'BTC/USDT')
  trades.append(START + 999_999, '{"n":1}\n')
  trades.append(START + 1_000_000, '{"n":2}\n')
  trades.append(START + 1_000_001, '{"n":"é€😀"}\n')
  trades.append(START + 1_000_000 + 30 * HOUR_US, '{"n":4}\n')
  expect(stored()).toEqual({})
  await flush(writer)
  expect(stored()).toEqual({
    'raw/okx/trades/BTC-USDT/2026-11-20/10.jsonl': '{"n":1}\n',
    'raw/okx/trades/BTC-USDT/2026-11-20/11.jsonl': '{"n":2}\n{"n":"é€😀"}\n',
    'raw/okx/trades/BTC-USDT/2026-11-21/17.jsonl': '{"n":4}\n'
  })
  expect(writer.pendingBytes).toBe(0)
  expect(trades.lines).toBe(4)
  expect(trades.bytes).toBe(Object.values(stored()).reduce((sum, text) => sum + Buffer.byteLength(text), 0))
  await writer.close()
})

it('appends to what an earlier run wrote, and is the same stream for the same names', async () => {
  writer.stream('okx', 'trades', 'A').append(START, '{"n":1}\n')
  await writer.close()
  const next = makeWriter()
  expect(next.stream('okx', 'trades', 'A')).toBe(next.stream('okx', 'trades', 'A'))
  next.stream('okx', 'trades', 'A').append(START + 5, '{"n":2}\n')
  await next.close()
  const path = hourPath(folder, 'okx', 'trades', 'A', hourOf(START))
  expect(readFileSync(path, 'utf8')).toBe('{"n":1}\n{"n":2}\n')
  expect(statSync(path).mode & 0o777).toBe(0o640)
})

it('a flush hands over the frames first, whichever stream was made or filled first', async () => {
  const events = writer.stream('okx', 'l2_updates', 'A')
  const frames = writer.stream('okx', 'frames', 'okx-1')
  const order = () => disk.written.map(path => /raw\/okx\/(\w+)\//.exec(path.replaceAll('\\', '/'))![1])
  events.append(START, '{"n":2}\n')
  frames.append(START, '{"n":1}\n')
  await flush(writer)
  expect(order()).toEqual(['frames', 'l2_updates'])
  disk.written.length = 0
  // A stream that is full is flushed, but never alone.
  frames.append(START + 1, '{"n":3}\n')
  for (let n = 0; n < 3; n++) events.append(START + 1, `{"text":"${'x'.repeat(80_000)}"}\n`)
  expect(order()[0]).toBe('frames')
  await writer.close()
})

it('takes lines of any length, in one part or in three', async () => {
  const frames = writer.stream('okx', 'frames', 'okx-1')
  let expected = ''
  for (const length of [1, 4000, 4096, 21_844, 21_845, 65_536, 300_000, 3, 70_000, 5]) {
    const text = 'é'.repeat(length)
    frames.append(START, `{"a":"${text}"}\n`)
    frames.appendAround(START, '{"msg":', `"${text}"`, '}\n')
    expected += `{"a":"${text}"}\n{"msg":"${text}"}\n`
  }
  await flush(writer)
  expect(Object.values(stored())[0] === expected).toBe(true)
  expect(writer.pendingBytes).toBe(0)
  await writer.close()
})

it('a disk that takes nothing pauses the writer: once told, bounded, and it goes on where it was', async () => {
  writer = makeWriter(100)
  const frames = writer.stream('okx', 'frames', 'okx-1')
  const events = writer.stream('okx', 'l2_updates', 'A')
  frames.append(START, '{"n":1}\n')
  await flush(writer)
  disk.takes = full
  frames.append(START, '{"n":2}\n')
  events.append(START, '{"n":2}\n')
  for (let n = 0; n < 5; n++) {
    await flush(writer)
    await retry(writer)
  }
  expect(told).toEqual(['paused ENOSPC: no space left on device, write'])
  expect([writer.isPaused, writer.isFull, writer.pendingBytes]).toEqual([true, false, 16])
  for (let n = 0; n < 11; n++) events.append(START, '{"n":3}\n')
  expect([writer.isFull, writer.pendingBytes]).toEqual([true, 104])
  // There is room again, but only `retry` looks.
  disk.takes = undefined
  await flush(writer)
  expect(writer.pendingBytes).toBe(104)
  await retry(writer)
  expect(told.at(-1)).toBe('resumed 104')
  expect([writer.isPaused, writer.isFull, writer.pendingBytes]).toEqual([false, false, 0])
  await retry(writer)
  expect(told).toHaveLength(2)
  await writer.close()
  expect(Object.values(stored()).sort()).toEqual(['{"n":1}\n{"n":2}\n', `{"n":2}\n${'{"n":3}\n'.repeat(11)}`])
})

it('no record reaches the disk while its frame cannot', async () => {
  const frames = writer.stream('okx', 'frames', 'okx-1')
  const events = writer.stream('okx', 'l2_updates', 'A')
  disk.takes = bytes => (bytes > 20 ? Math.floor(bytes / 2) : full())
  frames.append(START, `{"text":"${'x'.repeat(30)}"}\n`)
  events.append(START, '{"n":1}\n')
  await flush(writer)
  const files = stored()
  expect(Object.keys(files).filter(path => path.includes('l2_updates') && files[path] !== '')).toEqual([])
  disk.takes = undefined
  await retry(writer)
  await writer.close()
  expect(Object.values(stored()).every(text => text.endsWith('}\n'))).toBe(true)
})

it('closing throws what the disk says, and nothing is lost when it is closed again', async () => {
  writer.stream('okx', 'trades', 'A').append(START, '{"n":1}\n')
  disk.takes = full
  await expect(writer.close()).rejects.toThrow('ENOSPC')
  disk.takes = undefined
  await writer.close()
  expect(Object.values(stored())).toEqual(['{"n":1}\n'])
})

it('syncing while an hour ends closes every file once', async () => {
  const trades = writer.stream('okx', 'trades', 'A')
  for (let hour = 0; hour < 5; hour++) {
    trades.append(START + hour * HOUR_US, `{"n":${hour}}\n`)
    await flush(writer)
    writer.sync()
  }
  await writer.close()
  // The answers of the disk come later; none of them may be an error.
  await new Promise(resolve => setImmediate(resolve))
  expect(told).toEqual([])
  expect(Object.keys(stored())).toHaveLength(5)
})

it('whatever the disk does, nothing is torn, doubled, lost or out of order', async () => {
  type Step = { stream: number; size: number; hours: number } | 'flush' | 'retry' | 'sync' | 'wait' | { mood: number }
  const step: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        stream: fc.integer({ min: 0, max: 2 }),
        size: fc.oneof(fc.integer({ min: 0, max: 200 }), fc.constantFrom(5000, 30_000, 70_000, 270_000)),
        hours: fc.constantFrom(0, 0, 0, 0, 1)
      })
    },
    { weight: 6, arbitrary: fc.constantFrom('flush', 'retry', 'sync', 'wait', 'wait') },
    { weight: 3, arbitrary: fc.record({ mood: fc.integer({ min: 0, max: 6 }) }) }
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.integer(), async (steps, seed) => {
      rmSync(folder, { recursive: true, force: true })
      disk.takes = disk.refuses = undefined
      const each = makeWriter()
      const names = ['frames', 'trades', 'status']
      const expected = new Map<string, string>()
      let us = START
      let n = 0
      let state = seed >>> 0
      const random = () => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
        return state / 2 ** 32
      }
      // Kind, half-hearted, unreliable, full.
      const moods = [
        undefined,
        (bytes: number) => Math.ceil(random() * bytes),
        (bytes: number) => (random() < 0.4 ? full() : Math.ceil(random() * bytes)),
        full
      ]
      const refusals = ['open', 'mkdir', 'fdatasync'] as const
      const isPrefix = () => {
        for (const [path, text] of Object.entries(stored())) {
          const whole = expected.get(path) ?? ''
          expect(whole.startsWith(text), `${path} holds what was never written there`).toBe(true)
        }
      }
      for (const one of steps) {
        if (one === 'flush') each.flush()
        else if (one === 'retry') each.retry()
        else if (one === 'sync') each.sync()
        else if (one === 'wait') await each.drain()
        else if ('mood' in one) {
          disk.takes = moods[one.mood]
          disk.refuses = refusals[one.mood - moods.length]
        } else {
          us += 1 + one.hours * HOUR_US
          const name = names[one.stream]!
          const line = `{"n":${n++},"text":"${'y'.repeat(one.size)}"}\n`
          each.stream('okx', name, 'A').append(us, line)
          const path = relative(folder, hourPath(folder, 'okx', name, 'A', hourOf(us))).replaceAll('\\', '/')
          expected.set(path, (expected.get(path) ?? '') + line)
        }
      }
      isPrefix()
      disk.takes = disk.refuses = undefined
      // A pass that began before may still end badly.
      for (let n = 0; n < 3; n++) await retry(each)
      await flush(each)
      expect(each.pendingBytes).toBe(0)
      // A sync that was under way may still be refused, which closing tells.
      await each.close().catch(() => each.close())
      expect(stored()).toEqual(Object.fromEntries(expected))
    }),
    { numRuns: 60 }
  )
})

it('a disk that does not answer keeps nobody waiting, is told after a second, and nothing is lost', async () => {
  let answer: () => void = () => undefined
  disk.hangs = new Promise(resolve => {
    answer = resolve
  })
  const frames = writer.stream('okx', 'frames', 'okx-1')
  frames.append(START, '{"n":1}\n')
  writer.flush()
  for (let n = 2; n < 200; n++) frames.append(START, `{"n":${n},"text":"${'x'.repeat(1000)}"}\n`)
  writer.retry()
  expect(told).toEqual([])
  writer.retry()
  await vi.waitFor(() => expect(told).toEqual(['paused the disk does not answer']))
  disk.hangs = undefined
  answer()
  await writer.drain()
  expect(told.at(-1)).toMatch(/^resumed \d+$/)
  await flush(writer)
  await writer.close()
  expect(
    Object.values(stored())[0]!
      .split('\n')
      .map(line => line.slice(0, 8))
  ).toHaveLength(200)
})

it('a busy disk that does answer is not taken for one that does not', async () => {
  const frames = writer.stream('okx', 'frames', 'okx-1')
  for (let n = 0; n < 5; n++) {
    frames.append(START, `{"n":${n}}\n`)
    writer.flush()
    writer.retry()
    await writer.drain()
  }
  expect(told).toEqual([])
  await writer.close()
})

it('what the disk refuses to keep is told, and the file opened anew', async () => {
  const trades = writer.stream('okx', 'trades', 'A')
  trades.append(START, '{"n":1}\n')
  await flush(writer)
  disk.refuses = 'fdatasync'
  writer.sync()
  await vi.waitFor(() => expect(told[0]).toMatch(/^paused EIO.*fdatasync; 8 bytes of .* may not be on disk$/))
  disk.refuses = undefined
  const opened = disk.paths.size
  await retry(writer)
  expect(told.at(-1)).toMatch(/^resumed/)
  trades.append(START, '{"n":2}\n')
  await writer.close()
  expect(disk.paths.size).toBeGreaterThanOrEqual(opened)
  expect(Object.values(stored())).toEqual(['{"n":1}\n{"n":2}\n'])
})

it('closing tells that the disk did not keep what it took', async () => {
  writer.stream('okx', 'trades', 'A').append(START, '{"n":1}\n')
  disk.refuses = 'fdatasync'
  await expect(writer.close()).rejects.toThrow('EIO')
})

it('a file that somebody removed is begun anew, and what was in it is told', async () => {
  const trades = writer.stream('okx', 'trades', 'A')
  trades.append(START, '{"n":1}\n')
  await flush(writer)
  writer.sync()
  await vi.waitFor(() => expect(trades.current?.unsynced).toBe(0))
  rmSync(join(folder, 'raw'), { recursive: true })
  trades.append(START, '{"n":2}\n')
  await flush(writer)
  writer.sync()
  await vi.waitFor(async () => {
    trades.append(START, '{"n":3}\n')
    await flush(writer)
    expect(told).toEqual([expect.stringMatching(/^missing \d+ of 10.jsonl$/)])
  })
  await writer.close()
  expect(Object.values(stored())[0]).toMatch(/^(\{"n":3\}\n)+$/)
})

it('a line that was half written into a file that is gone is written whole into the next', async () => {
  const trades = writer.stream('okx', 'trades', 'A')
  disk.takes = bytes => (bytes > 4 ? 4 : full())
  trades.append(START, '{"n":1}\n')
  await flush(writer)
  expect(Object.values(stored())).toEqual(['{"n"'])
  rmSync(join(folder, 'raw'), { recursive: true })
  writer.refuse('the vault is gone')
  disk.takes = undefined
  await retry(writer)
  await writer.close()
  expect(Object.values(stored())).toEqual(['{"n":1}\n'])
})

it('a guard that refuses keeps the vault from being written, and directories from being made', async () => {
  let refusal: Error | undefined = new Error('no disk is mounted')
  mkdirSync(folder, { recursive: true })
  writer = new VaultWriter(folder, {
    pendingMax: 1000,
    onPause: reason => void told.push(`paused ${reason}`),
    onResume: waited => void told.push(`resumed ${waited}`),
    guard: () => (refusal ? Promise.reject(refusal) : Promise.resolve())
  })
  writer.stream('okx', 'trades', 'A').append(START, '{"n":1}\n')
  await flush(writer)
  expect(told).toEqual(['paused no disk is mounted'])
  expect(readdirSync(folder)).toEqual([])
  refusal = undefined
  await retry(writer)
  await writer.close()
  expect(Object.values(stored())).toEqual(['{"n":1}\n'])
})

it('a file that somebody cut is opened anew, and what is missing is told', async () => {
  const trades = writer.stream('okx', 'trades', 'A')
  trades.append(START, '{"n":1}\n{"n":2}\n')
  await flush(writer)
  truncateSync(hourPath(folder, 'okx', 'trades', 'A', hourOf(START)), 8)
  writer.sync()
  await vi.waitFor(async () => {
    trades.append(START, '{"n":3}\n')
    await flush(writer)
    expect(told).toEqual([expect.stringMatching(/^missing 8 of 10.jsonl$/)])
  })
  await writer.close()
})

it('a sync that takes seconds is told once, and writing goes on', async () => {
  let answer: () => void = () => undefined
  disk.sleeps = new Promise(resolve => {
    answer = resolve
  })
  const trades = writer.stream('okx', 'trades', 'A')
  trades.append(START, '{"n":1}\n')
  await flush(writer)
  writer.sync()
  for (let n = 0; n < 5; n++) {
    trades.append(START, '{"n":2}\n')
    await retry(writer)
  }
  expect(told).toEqual(['slow 10.jsonl'])
  await flush(writer)
  expect(writer.pendingBytes).toBe(0)
  disk.sleeps = undefined
  answer()
  await writer.close()
})

it('a line that comes while the writer closes is written, too', async () => {
  let answer: () => void = () => undefined
  disk.hangs = new Promise(resolve => {
    answer = resolve
  })
  const status = () => writer.stream('okx', 'status', 'A')
  writer = new VaultWriter(folder, {
    pendingMax: 1000,
    onPause: reason => void told.push(`paused ${reason}`),
    // As a capture does: its status comes after the line at hand.
    onResume: () => void setImmediate(() => status().append(START, '{"event":"writer_resumed"}\n'))
  })
  writer.stream('okx', 'trades', 'A').append(START, '{"n":1}\n')
  writer.flush()
  writer.retry()
  writer.retry()
  await vi.waitFor(() => expect(told).toEqual(['paused the disk does not answer']))
  const closed = writer.close()
  disk.hangs = undefined
  answer()
  await closed
  expect(Object.values(stored()).sort()).toEqual(['{"event":"writer_resumed"}\n', '{"n":1}\n'])
})

it('closing tells that a sync under way was refused', async () => {
  writer.stream('okx', 'trades', 'A').append(START, '{"n":1}\n')
  await flush(writer)
  disk.refuses = 'fdatasync'
  writer.sync()
  await expect(writer.close()).rejects.toThrow('EIO')
})

it('a process that could not listen for a while does not take that for the silence of the disk', async () => {
  const trades = writer.stream('okx', 'trades', 'A')
  trades.append(START, '{"n":1}\n')
  await flush(writer)
  trades.append(START, '{"n":2}\n')
  writer.flush()
  writer.retry()
  // The disk answers meanwhile.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
  writer.retry()
  await writer.drain()
  await writer.close()
  expect(told).toEqual([])
})

it('a copy that takes the place of the files is gone on with', async () => {
  const trades = writer.stream('okx', 'trades', 'A')
  trades.append(START, '{"n":1}\n')
  await flush(writer)
  writer.sync()
  await vi.waitFor(() => expect(trades.current?.unsynced).toBe(0))
  renameSync(join(folder, 'raw'), join(folder, 'original'))
  cpSync(join(folder, 'original'), join(folder, 'raw'), { recursive: true })
  const path = hourPath(folder, 'okx', 'trades', 'A', hourOf(START))
  await vi.waitFor(async () => {
    trades.append(START, '{"n":2}\n')
    await flush(writer)
    writer.sync()
    expect(readFileSync(path, 'utf8')).toMatch(/^\{"n":1\}\n(\{"n":2\}\n)+$/)
  })
  expect(told).toEqual([expect.stringMatching(/^missing \d+ of 10.jsonl$/)])
  await writer.close()
})
