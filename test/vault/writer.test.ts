import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { HOUR_US, hourOf } from '../../src/core/time.ts'
import { hourPath } from '../../src/vault/layout.ts'
import { VaultWriter } from '../../src/vault/writer.ts'

/** A disk with moods: how many of so many bytes it takes. May throw. */
const disk = vi.hoisted(() => ({
  takes: undefined as ((bytes: number) => number) | undefined,
  paths: new Map<number, string>(),
  written: [] as string[]
}))

vi.mock('node:fs', async importOriginal => {
  const original = await importOriginal<typeof import('node:fs')>()
  return {
    ...original,
    openSync(path: string, flags: string, mode: number): number {
      const file = original.openSync(path, flags, mode)
      disk.paths.set(file, path)
      return file
    },
    writeSync(file: number, bytes: Buffer, offset = 0, length = bytes.length - offset): number {
      const taken = disk.takes ? disk.takes(length) : length
      if (taken === 0) return 0
      disk.written.push(disk.paths.get(file)!)
      return original.writeSync(file, bytes, offset, taken)
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
    onResume: waited => void told.push(`resumed ${waited}`)
  })
}

function full(): never {
  throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
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
  disk.takes = undefined
  disk.written.length = 0
  writer = makeWriter()
})
// A run of the property below may have removed it and written nothing.
afterEach(() => rmSync(folder, { recursive: true, force: true }))

it('a line goes to the hour of its own receive time', () => {
  const trades = writer.stream('okx', 'trades', 'BTC/USDT')
  trades.append(START + 999_999, '{"n":1}\n')
  trades.append(START + 1_000_000, '{"n":2}\n')
  trades.append(START + 1_000_001, '{"n":"é€😀"}\n')
  trades.append(START + 1_000_000 + 30 * HOUR_US, '{"n":4}\n')
  expect(stored()).toEqual({})
  writer.flush()
  expect(stored()).toEqual({
    'raw/okx/trades/BTC-USDT/2026-11-20/10.jsonl': '{"n":1}\n',
    'raw/okx/trades/BTC-USDT/2026-11-20/11.jsonl': '{"n":2}\n{"n":"é€😀"}\n',
    'raw/okx/trades/BTC-USDT/2026-11-21/17.jsonl': '{"n":4}\n'
  })
  expect(writer.pendingBytes).toBe(0)
  expect(trades.lines).toBe(4)
  expect(trades.bytes).toBe(Object.values(stored()).reduce((sum, text) => sum + Buffer.byteLength(text), 0))
  writer.close()
})

it('appends to what an earlier run wrote, and is the same stream for the same names', () => {
  writer.stream('okx', 'trades', 'A').append(START, '{"n":1}\n')
  writer.close()
  const next = makeWriter()
  expect(next.stream('okx', 'trades', 'A')).toBe(next.stream('okx', 'trades', 'A'))
  next.stream('okx', 'trades', 'A').append(START + 5, '{"n":2}\n')
  next.close()
  const path = hourPath(folder, 'okx', 'trades', 'A', hourOf(START))
  expect(readFileSync(path, 'utf8')).toBe('{"n":1}\n{"n":2}\n')
  expect(statSync(path).mode & 0o777).toBe(0o640)
})

it('a flush hands over the frames first, whichever stream was made or filled first', () => {
  const events = writer.stream('okx', 'l2_updates', 'A')
  const frames = writer.stream('okx', 'frames', 'okx-1')
  const order = () => disk.written.map(path => /raw\/okx\/(\w+)\//.exec(path.replaceAll('\\', '/'))![1])
  events.append(START, '{"n":2}\n')
  frames.append(START, '{"n":1}\n')
  writer.flush()
  expect(order()).toEqual(['frames', 'l2_updates'])
  disk.written.length = 0
  // A stream that is full is flushed, but never alone.
  frames.append(START + 1, '{"n":3}\n')
  for (let n = 0; n < 3; n++) events.append(START + 1, `{"text":"${'x'.repeat(20_000)}"}\n`)
  expect(order()[0]).toBe('frames')
  writer.close()
})

it('takes lines of any length, in one part or in three', () => {
  const frames = writer.stream('okx', 'frames', 'okx-1')
  let expected = ''
  for (const length of [1, 4000, 4096, 21_844, 21_845, 65_536, 300_000, 3, 70_000, 5]) {
    const text = 'é'.repeat(length)
    frames.append(START, `{"a":"${text}"}\n`)
    frames.appendAround(START, '{"msg":', `"${text}"`, '}\n')
    expected += `{"a":"${text}"}\n{"msg":"${text}"}\n`
  }
  writer.flush()
  expect(Object.values(stored())[0] === expected).toBe(true)
  expect(writer.pendingBytes).toBe(0)
  writer.close()
})

it('a disk that takes nothing pauses the writer: once told, bounded, and it goes on where it was', () => {
  writer = makeWriter(100)
  const frames = writer.stream('okx', 'frames', 'okx-1')
  const events = writer.stream('okx', 'l2_updates', 'A')
  frames.append(START, '{"n":1}\n')
  writer.flush()
  disk.takes = full
  frames.append(START, '{"n":2}\n')
  events.append(START, '{"n":2}\n')
  for (let n = 0; n < 5; n++) {
    writer.flush()
    writer.retry()
  }
  expect(told).toEqual(['paused ENOSPC: no space left on device, write'])
  expect([writer.isPaused, writer.isFull, writer.pendingBytes]).toEqual([true, false, 16])
  for (let n = 0; n < 11; n++) events.append(START, '{"n":3}\n')
  expect([writer.isFull, writer.pendingBytes]).toEqual([true, 104])
  // There is room again, but only `retry` looks.
  disk.takes = undefined
  writer.flush()
  expect(writer.pendingBytes).toBe(104)
  writer.retry()
  expect(told.at(-1)).toBe('resumed 104')
  expect([writer.isPaused, writer.isFull, writer.pendingBytes]).toEqual([false, false, 0])
  writer.retry()
  expect(told).toHaveLength(2)
  writer.close()
  expect(Object.values(stored()).sort()).toEqual(['{"n":1}\n{"n":2}\n', `{"n":2}\n${'{"n":3}\n'.repeat(11)}`])
})

it('no record reaches the disk while its frame cannot', () => {
  const frames = writer.stream('okx', 'frames', 'okx-1')
  const events = writer.stream('okx', 'l2_updates', 'A')
  disk.takes = bytes => (bytes > 20 ? Math.floor(bytes / 2) : full())
  frames.append(START, `{"text":"${'x'.repeat(30)}"}\n`)
  events.append(START, '{"n":1}\n')
  writer.flush()
  const files = stored()
  expect(Object.keys(files).filter(path => path.includes('l2_updates') && files[path] !== '')).toEqual([])
  disk.takes = undefined
  writer.retry()
  writer.close()
  expect(Object.values(stored()).every(text => text.endsWith('}\n'))).toBe(true)
})

it('closing throws what the disk says, and nothing is lost when it is closed again', () => {
  writer.stream('okx', 'trades', 'A').append(START, '{"n":1}\n')
  disk.takes = full
  expect(() => writer.close()).toThrow('ENOSPC')
  disk.takes = undefined
  writer.close()
  expect(Object.values(stored())).toEqual(['{"n":1}\n'])
})

it('syncing while an hour ends closes every file once', async () => {
  const trades = writer.stream('okx', 'trades', 'A')
  for (let hour = 0; hour < 5; hour++) {
    trades.append(START + hour * HOUR_US, `{"n":${hour}}\n`)
    writer.flush()
    writer.sync()
  }
  writer.close()
  // The answers of the disk come later; none of them may be an error.
  await new Promise(resolve => setImmediate(resolve))
  expect(told).toEqual([])
  expect(Object.keys(stored())).toHaveLength(5)
})

it('whatever the disk does, nothing is torn, doubled, lost or out of order', () => {
  type Step = { stream: number; size: number; hours: number } | 'flush' | 'retry' | { mood: number }
  const step: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        stream: fc.integer({ min: 0, max: 2 }),
        size: fc.oneof(fc.integer({ min: 0, max: 200 }), fc.constantFrom(5000, 30_000, 70_000)),
        hours: fc.constantFrom(0, 0, 0, 0, 1)
      })
    },
    { weight: 3, arbitrary: fc.constant('flush' as const) },
    { weight: 3, arbitrary: fc.constant('retry' as const) },
    { weight: 3, arbitrary: fc.record({ mood: fc.integer({ min: 0, max: 3 }) }) }
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.integer(), (steps, seed) => {
      rmSync(folder, { recursive: true, force: true })
      disk.takes = undefined
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
      const isPrefix = () => {
        for (const [path, text] of Object.entries(stored())) {
          const whole = expected.get(path) ?? ''
          expect(whole.startsWith(text), `${path} holds what was never written there`).toBe(true)
        }
      }
      for (const one of steps) {
        if (one === 'flush') each.flush()
        else if (one === 'retry') each.retry()
        else if ('mood' in one) disk.takes = moods[one.mood]
        else {
          us += 1 + one.hours * HOUR_US
          const name = names[one.stream]!
          const line = `{"n":${n++},"text":"${'y'.repeat(one.size)}"}\n`
          each.stream('okx', name, 'A').append(us, line)
          const path = relative(folder, hourPath(folder, 'okx', name, 'A', hourOf(us))).replaceAll('\\', '/')
          expected.set(path, (expected.get(path) ?? '') + line)
        }
      }
      isPrefix()
      disk.takes = undefined
      each.retry()
      each.flush()
      expect(each.pendingBytes).toBe(0)
      each.close()
      expect(stored()).toEqual(Object.fromEntries(expected))
    }),
    { numRuns: 60 }
  )
})
