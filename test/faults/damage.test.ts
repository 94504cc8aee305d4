import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hourOf } from '../../src/core/time.ts'
import { createRandom, type Random } from '../../src/simulator/random.ts'
import { hourPath } from '../../src/vault/layout.ts'
import { lastLine, readLines } from '../../src/vault/reader.ts'
import { repairTail } from '../../src/vault/repair.ts'
import { lastReceiveUs, readTradeIds, repairStream } from '../../src/vault/resume.ts'
import { runRetention } from '../../src/vault/retention.ts'

// Closed hours that rot: what is read of them is right or an error that names the file, and nothing that is still good is
// lost by it. L3CAP_FAULT_SEED repeats another damage, L3CAP_FAULT_DAMAGES=20000 is the long form.
const SEED = Number(process.env.L3CAP_FAULT_SEED ?? 11)
const DAMAGES = Number(process.env.L3CAP_FAULT_DAMAGES ?? 800)
const HOUR = Date.UTC(2026, 10, 20, 12) / 3_600_000
const NOW = (HOUR + 8) * 3_600_000
const HEADER_BYTES = 10
const isUnix = process.platform !== 'win32'
const STREAM = ['okx', 'trades', 'BTC-USDT-SWAP'] as const

let vault: string
beforeEach(() => {
  vault = mkdtempSync(join(tmpdir(), 'l3cap-damage-'))
})
afterEach(() => rmSync(vault, { recursive: true }))

/** Trades of an hour, one every 10 s. */
function trades(hour: number, count = 200): string {
  const line = (at: number) =>
    `{"timestamp_utc":"-","recv_us":${hour * 3_600_000_000 + at * 10_000_000},"trade_id":"${hour}-${at}","price":"${at * 7919}.5"}\n`
  return Array.from({ length: count }, (_, at) => line(at)).join('')
}

function ids(hour: number, count = 200): string[] {
  return Array.from({ length: count }, (_, at) => `${hour}-${at}`)
}

function put(hour: number, content: string | Buffer, ending = ''): string {
  const path = hourPath(vault, ...STREAM, hour) + ending
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content)
  return path
}

/** What a file reads as: its text, or the error. */
async function read(path: string): Promise<{ text: string; error?: unknown }> {
  const lines: string[] = []
  try {
    for await (const batch of readLines(path)) lines.push(...batch)
  } catch (error) {
    return { text: lines.join('\n'), error }
  }
  return { text: `${lines.join('\n')}\n` }
}

/** One of the ways in which a compressed hour goes bad, and whether a reader may still take it for whole. */
function damage(whole: Buffer, random: Random): { what: string; bytes: Buffer } {
  const kind = random.integer(5)
  const at = random.integer(whole.length)
  if (kind === 0) return { what: `cut at ${at}`, bytes: whole.subarray(0, at) }
  if (kind === 1) {
    const bytes = Buffer.from(whole)
    bytes.fill(0, at, Math.min(whole.length, at + 1 + random.integer(512)))
    return { what: `zeros from ${at}`, bytes }
  }
  if (kind === 2) {
    // Zeros are what a power cut leaves, and what zlib takes for padding.
    const top = random.integer(2) * 255
    const tail = Buffer.from(Array.from({ length: 1 + random.integer(40) }, () => random.integer(top + 1)))
    return { what: `${tail.toString('hex')} behind`, bytes: Buffer.concat([whole, tail]) }
  }
  const bytes = Buffer.from(whole)
  bytes[at]! ^= 1 << random.integer(8)
  return { what: `a bit of byte ${at} flipped`, bytes }
}

describe(`a compressed hour that rots (seed ${SEED})`, () => {
  test(`is read whole or found out, ${DAMAGES} times`, { timeout: 20_000 + DAMAGES * 20 }, async () => {
    const random = createRandom(SEED)
    const text = trades(HOUR)
    const whole = gzipSync(text)
    let found = 0
    for (let n = 0; n < DAMAGES; n++) {
      const { what, bytes } = damage(whole, random)
      const path = put(HOUR, bytes, '.gz')
      const result = await read(path)
      // Bits of the header (time, system) mean nothing; no other content may ever come without an error.
      if (result.error === undefined) {
        expect(result.text === text, `${what}, seed ${SEED}`).toBe(true)
        expect(bytes.subarray(HEADER_BYTES).equals(whole.subarray(HEADER_BYTES)), `${what}, seed ${SEED}`).toBe(true)
      } else {
        found++
        expect(result.error, `${what}, seed ${SEED}`).toMatchObject({ code: 'VAULT_DAMAGED' })
        expect(String(result.error), what).toContain(path)
      }
    }
    expect(found).toBeGreaterThan(DAMAGES * 0.9)
  })

  test('gives the trade ids before the damage, and one word about it', async () => {
    const random = createRandom(SEED)
    const text = trades(HOUR, 20_000)
    const whole = gzipSync(text)
    for (let n = 0; n < 20; n++) {
      const path = put(HOUR, whole.subarray(0, random.integer(whole.length)), '.gz')
      put(HOUR + 1, trades(HOUR + 1))
      const told: string[] = []
      const have = await readTradeIds(vault, 'okx', STREAM[2], HOUR + 1, where => told.push(where))
      expect(told, `seed ${SEED}`).toEqual([path])
      const before = have.length - 200
      expect(have).toEqual([...ids(HOUR, before), ...ids(HOUR + 1)])
    }
    await expect(readTradeIds(vault, 'okx', STREAM[2], HOUR + 1)).rejects.toMatchObject({ code: 'VAULT_DAMAGED' })
  })

  test('is left with its plain lines by retention, whatever is wrong with it', async () => {
    const random = createRandom(SEED)
    const whole = gzipSync(trades(HOUR))
    const late = trades(HOUR, 3).replaceAll('trade_id":"', 'trade_id":"late-')
    for (let n = 0; n < 40; n++) {
      const { what, bytes } = damage(whole, random)
      const packed = put(HOUR, bytes, '.gz')
      const plain = put(HOUR, late)
      const report = await runRetention(vault, { nowMs: NOW })
      if (report.failed.length > 0) {
        expect(report.failed, what).toMatchObject([{ path: plain, message: expect.stringContaining(packed) }])
        expect(readFileSync(plain, 'utf8'), what).toBe(late)
        expect(readFileSync(packed).equals(bytes), what).toBe(true)
      } else {
        expect(existsSync(plain), what).toBe(false)
        expect(gunzipSync(readFileSync(packed)).toString(), what).toBe(trades(HOUR) + late)
      }
      expect(readdirSync(dirname(plain)).filter(name => name.endsWith('.tmp'))).toEqual([])
    }
  })
})

/** Plain hours that went bad, and how many of their 200 lines are still whole. */
const PLAIN: [what: string, spoil: (text: string) => string | Buffer, whole: number][] = [
  ['zeros behind it', text => Buffer.concat([Buffer.from(text), Buffer.alloc(5000)]), 200],
  ['zeros and half a line behind it', text => `${text}${'\0'.repeat(3000)}{"recv_us":17`, 200],
  ['half a line behind it', text => `${text}{"timestamp_utc":"-","recv_us":179`, 200],
  ['Windows line ends', text => text.replaceAll('\n', '\r\n'), 200],
  ['a byte order mark', text => `\ufeff${text}`, 200],
  ['half a line in the middle', text => text.replace(`"trade_id":"${HOUR}-77",`, '"trade'), 199],
  [
    'a zeroed block in the middle',
    text => text.replace(/.{40}"trade_id":"\d+-77".{5}/, all => '\0'.repeat(all.length)),
    199
  ],
  ['bytes that are no text', text => Buffer.from(text.replace(`${HOUR}-77"`, `${HOUR}-77\ufffe\\"`), 'latin1'), 200],
  ['a last line of another century', text => `${text}{"recv_us":9702567846001123,"trade_id":"${HOUR}-0"}\n`, 201],
  ['a last line that is no record', text => `${text}\u0001\u0002 nothing\n`, 200],
  ['nothing in it', () => '', 0]
]

test.each(PLAIN)('a plain hour with %s is used as far as it goes', async (_what, spoil, whole) => {
  const path = put(HOUR, spoil(trades(HOUR)))
  const older = put(HOUR - 1, trades(HOUR - 1))
  const told: string[] = []
  const onTrouble = (where: string) => void told.push(where)
  repairStream(vault, ...STREAM, { onTrouble })
  expect((await readTradeIds(vault, 'okx', STREAM[2], HOUR, onTrouble)).length).toBe(200 + whole)
  const last = whole === 0 ? HOUR * 3_600_000_000 - 3_600_000_000 : HOUR * 3_600_000_000
  expect(lastReceiveUs(vault, ...STREAM, { onTrouble })).toBe(last + 1_990_000_000)
  expect(told).toEqual([])
  // What is whole survives being compressed; what was moved aside lies beside it.
  const before = readFileSync(path)
  expect((await runRetention(vault, { nowMs: NOW })).failed).toEqual([])
  if (before.length > 0) expect(gunzipSync(readFileSync(`${path}.gz`)).equals(before)).toBe(true)
  expect(gunzipSync(readFileSync(`${older}.gz`)).toString()).toBe(trades(HOUR - 1))
})

test('a line of 100 MB costs time, and nothing else', async () => {
  const huge = `{"recv_us":${HOUR * 3_600_000_000},"text":"${'x'.repeat(100_000_000)}"}\n`
  const path = put(HOUR, huge + trades(HOUR))
  expect(await readTradeIds(vault, 'okx', STREAM[2], HOUR)).toEqual(ids(HOUR))
  expect(repairTail(path)).toBeUndefined()
  writeFileSync(path, trades(HOUR) + huge)
  const told: string[] = []
  expect(lastReceiveUs(vault, ...STREAM, { onTrouble: where => told.push(where) })).toBe(0)
  expect(told).toEqual([path])
})

test('an end that holds no record for long is given up, and told', () => {
  const path = put(HOUR, trades(HOUR, 5) + 'nothing\n'.repeat(100_000))
  expect(() => lastLine(path, line => line.startsWith('{'))).toThrow(expect.objectContaining({ code: 'VAULT_DAMAGED' }))
})

test('hours far ahead of the clock are told and not waited for, but their tails are mended', () => {
  put(HOUR, trades(HOUR))
  const ahead = put(HOUR + 2000, `${trades(HOUR + 2000)}half`)
  const told: string[] = []
  const options = { nowUs: HOUR * 3_600_000_000, onTrouble: (where: string) => void told.push(where) }
  expect(hourOf(lastReceiveUs(vault, ...STREAM, options))).toBe(HOUR)
  expect(told).toEqual([ahead])
  expect(repairStream(vault, ...STREAM, options)).toBe(4)
  // An hour ahead is a clock that was set back: the next run begins behind it.
  put(HOUR + 1, trades(HOUR + 1))
  expect(hourOf(lastReceiveUs(vault, ...STREAM, options))).toBe(HOUR + 1)
})

describe.skipIf(!isUnix)('things in the place of hour files', () => {
  /** Every entry of the vault, and what stands in the regular files. */
  function tree(): string[] {
    return readdirSync(vault, { recursive: true, withFileTypes: true })
      .map(entry => {
        const path = join(entry.parentPath, entry.name)
        return `${relative(vault, path)} ${entry.isFile() ? readFileSync(path, 'hex') : statSync(path).mode}`
      })
      .filter(line => !line.startsWith('meta'))
      .sort()
  }

  test('pipes never make anybody wait, and are left alone', async () => {
    for (const [at, ending] of ['', '.gz', '.torn', '.gz.tmp'].entries()) {
      const place = put(HOUR - at, '', ending)
      rmSync(place)
      execFileSync('mkfifo', [place])
    }
    put(HOUR - 4, `${trades(HOUR - 4)}half`)
    const before = tree()
    const told: string[] = []
    const onTrouble = (where: string) => void told.push(where)
    const path = hourPath(vault, ...STREAM, HOUR)
    expect(() => lastLine(path)).toThrow(expect.objectContaining({ code: 'VAULT' }))
    expect(() => repairTail(path)).toThrow(expect.objectContaining({ code: 'VAULT' }))
    expect((await read(path)).error).toMatchObject({ code: 'VAULT' })
    expect(await readTradeIds(vault, 'okx', STREAM[2], HOUR, onTrouble)).toEqual(ids(HOUR - 4))
    expect((await runRetention(vault, { nowMs: NOW + 40 * 3_600_000, dryRun: true })).failed).toEqual([])
    expect(tree()).toEqual(before)
    expect(told).toEqual([])
  })

  test('a torn file that is a pipe or a link stops the mending, not the reading', () => {
    const path = put(HOUR, `${trades(HOUR)}half`)
    const elsewhere = join(vault, 'elsewhere')
    writeFileSync(elsewhere, 'kept')
    symlinkSync(elsewhere, `${path}.torn`)
    const told: string[] = []
    const onTrouble = (where: string) => void told.push(where)
    expect(repairStream(vault, ...STREAM, { onTrouble, nowUs: (HOUR + 1) * 3_600_000_000 })).toBe(0)
    expect(told).toEqual([path])
    // A capture would go on writing behind the half line.
    const refusal = expect.objectContaining({ code: 'VAULT', message: expect.stringContaining(path) })
    expect(() => repairStream(vault, ...STREAM, { onTrouble, nowUs: HOUR * 3_600_000_000 })).toThrow(refusal)
    expect(readFileSync(elsewhere, 'utf8')).toBe('kept')
    expect(readFileSync(path, 'utf8').endsWith('half')).toBe(true)
    expect(lastReceiveUs(vault, ...STREAM)).toBeGreaterThan(0)
  })

  test('a stream that is a link is neither read nor mended', async () => {
    const outside = mkdtempSync(join(tmpdir(), 'l3cap-outside-'))
    try {
      const path = put(HOUR, `${trades(HOUR)}half`)
      const stream = dirname(dirname(path))
      execFileSync('mv', [stream, join(outside, 'moved')])
      symlinkSync(join(outside, 'moved'), stream)
      const told: string[] = []
      const onTrouble = (where: string) => void told.push(where)
      expect(repairStream(vault, ...STREAM, { onTrouble })).toBe(0)
      expect(lastReceiveUs(vault, ...STREAM, { onTrouble })).toBe(0)
      expect(await readTradeIds(vault, 'okx', STREAM[2], HOUR, onTrouble)).toEqual([])
      expect(told).toEqual([stream, stream, stream])
    } finally {
      rmSync(outside, { recursive: true })
    }
  })

  test.skipIf(process.getuid?.() === 0)('a directory that cannot be read is told, the others are done', async () => {
    const path = put(HOUR, trades(HOUR))
    const closed = join(vault, 'raw', 'closed')
    mkdirSync(closed, { mode: 0 })
    const report = await runRetention(vault, { nowMs: NOW })
    expect(report.failed).toMatchObject([{ path: closed }])
    expect(existsSync(`${path}.gz`)).toBe(true)
  })
})
