import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { hourPath, lockPath } from '../../src/vault/layout.ts'
import { acquireLock } from '../../src/vault/lock.ts'
import { repairTail, repairVault, tailBytes } from '../../src/vault/repair.ts'

const NOW = Date.UTC(2026, 10, 20, 12, 30)
let folder: string
let path: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-repair-'))
  path = join(folder, '15.jsonl')
})
afterEach(() => rmSync(folder, { recursive: true }))

/** Repairs a file of that content; what it holds then, and its torn file. */
function repaired(content: string): { whole: string; torn: string | undefined; movedBytes: number } {
  rmSync(`${path}.torn`, { force: true })
  writeFileSync(path, content)
  const announced = tailBytes(path)
  expect(readFileSync(path, 'utf8')).toBe(content)
  const movedBytes = repairTail(path)?.movedBytes ?? 0
  expect(movedBytes).toBe(announced)
  const torn = existsSync(`${path}.torn`) ? readFileSync(`${path}.torn`, 'utf8') : undefined
  return { whole: readFileSync(path, 'utf8'), torn, movedBytes }
}

test('a file cut off at any byte keeps its whole lines, and nothing is lost', () => {
  const content = '{"a":"é"}\n{"b":2}\n{"c":3}\n'
  for (let length = 0; length <= content.length; length += 1) {
    const cut = content.slice(0, length)
    const end = cut.lastIndexOf('\n') + 1
    const tail = cut.slice(end)
    const torn = tail === '' ? undefined : tail
    expect(repaired(cut)).toEqual({ whole: cut.slice(0, end), torn, movedBytes: Buffer.byteLength(tail) })
  }
})

test.each([
  ['NUL bytes', '{"a":1}\n', '\0'.repeat(5000)],
  ['half a line and NUL bytes', '{"a":1}\n', `{"b":\0\0\0`],
  ['NUL bytes and the rest of a line', '{"a":1}\n', `\0\0\0"b":2}\n`],
  ['several lines with NUL bytes', '{"a":1}\n', `\0\0"b":2}\n{"c\0\0\n\0`],
  ['NUL bytes alone', '', '\0'.repeat(3 * 1024 * 1024)],
  ['a long half line', '{"a":1}\n', `{"b":"${'x'.repeat(3 * 1024 * 1024)}`]
])('%s are moved', (_, whole, tail) => {
  expect(repaired(whole + tail)).toEqual({ whole, torn: tail, movedBytes: tail.length })
})

test.each([
  ['whole lines', '{"a":1}\n{"b":2}\n'],
  ['whole lines behind NUL bytes', '{"a":1}\n\0\0\0\n{"b":2}\n'],
  ['an escaped NUL', '{"a":"\\u0000"}\n'],
  ['a whole line that is no JSON', '{"a":1}\nwhat a crash cannot leave\n'],
  ['nothing', '']
])('%s stay as they are', (_, content) => {
  expect(repaired(content)).toEqual({ whole: content, torn: undefined, movedBytes: 0 })
  expect(repairTail(join(folder, 'none.jsonl'))).toBeUndefined()
})

test('tails gather in the torn file, each on a line of its own', () => {
  repaired('{"a":1}\n{"b"')
  appendFileSync(path, '{"c"')
  repairTail(path)
  expect(readFileSync(path, 'utf8')).toBe('{"a":1}\n')
  expect(readFileSync(`${path}.torn`, 'utf8')).toBe('{"b"\n{"c"')
})

test('after a crash between the two steps the tail stands twice, never nowhere', () => {
  writeFileSync(path, '{"a":1}\n{"b"')
  writeFileSync(`${path}.torn`, '{"b"')
  repairTail(path)
  expect(readFileSync(path, 'utf8')).toBe('{"a":1}\n')
  expect(readFileSync(`${path}.torn`, 'utf8')).toBe('{"b"\n{"b"')
})

test.skipIf(process.platform === 'win32')('links are refused', () => {
  const elsewhere = join(folder, 'elsewhere')
  writeFileSync(elsewhere, 'half')
  symlinkSync(elsewhere, path)
  expect(() => repairTail(path)).toThrow(expect.objectContaining({ code: 'VAULT' }))
  rmSync(path)
  writeFileSync(path, '{"a":1}\n{"b"')
  symlinkSync(elsewhere, `${path}.torn`)
  expect(() => repairTail(path)).toThrow(expect.objectContaining({ code: 'VAULT' }))
  expect(readFileSync(elsewhere, 'utf8')).toBe('half')
  expect(readFileSync(path, 'utf8')).toBe('{"a":1}\n{"b"')
})

test('a vault is repaired except for what a live process writes', () => {
  const hour = Math.floor(NOW / 3_600_000)
  const put = (exchange: string, feed: string, name: string, content: string) => {
    const file = hourPath(folder, exchange, feed, name, hour)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, content)
    return file
  }
  const held = put('okx', 'trades', 'BTC-USDT', '{"a":1}\nhalf')
  const free = put('okx', 'trades', 'ETH-USDT', '{"a":1}\nhalf')
  const whole = put('kraken', 'trades', 'BTC-USD', '{"a":1}\n')
  mkdirSync(`${put('kraken', 'status', 'BTC-USD', '{"a":1}\nhalf')}.torn`)
  const lock = acquireLock(lockPath(folder, 'okx', 'BTC-USDT'), { command: 'test', nowMs: NOW })
  const options = { nowMs: NOW, command: 'test' }

  const dry = repairVault(folder, {}, { ...options, dryRun: true })
  expect(dry).toMatchObject({ examined: 3, skipped: [{ exchange: 'okx', name: 'BTC-USDT' }], failed: [] })
  expect(readFileSync(free, 'utf8')).toBe('{"a":1}\nhalf')

  const report = repairVault(folder, {}, { ...options, dryRun: false })
  expect(report.repaired).toEqual([{ path: free, movedBytes: 4 }])
  expect(report.skipped).toMatchObject([{ holder: expect.stringContaining(`pid ${process.pid}`) }])
  expect(report.failed).toHaveLength(1)
  expect(readFileSync(held, 'utf8')).toBe('{"a":1}\nhalf')
  expect(readFileSync(whole, 'utf8')).toBe('{"a":1}\n')

  lock.release()
  expect(repairVault(folder, { exchange: 'okx' }, { ...options, dryRun: false })).toMatchObject({
    repaired: [{ path: held }],
    skipped: []
  })
  expect(lstatSync(lockPath(folder, 'okx', 'ETH-USDT'), { throwIfNoEntry: false })).toBeUndefined()
})
