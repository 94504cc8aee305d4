import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { beforeAll, describe, expect, it } from 'vitest'
import { FEEDS } from '../../src/core/instrument.ts'
import { depthOf, jsonSchemaOf, RECORDS, recordFault, recordKeys, recordName, sidesOf } from '../../src/core/records.ts'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import type { SimulatedExchange } from '../../src/simulator/listing.ts'
import { simulatorFaultKinds } from '../../src/simulator/simulator.ts'
import { live, onStage, type StageExchange, until } from '../faults/harness.ts'
import { Driver, hasRecordings, loadFrames, NEEDS_RECORDINGS, play, type Row } from '../helpers/driver.ts'
import { type RecordingOptions, tapeOfRecording } from '../helpers/recorded.ts'

const SCHEMAS = 'config/schemas'
const HOUR_MS = 3_600_000
/** How far the faults of an exchange lie apart. */
const APART_MS = 800
const SHIM = resolve('test/faults/clock.cjs')
const CAPTURED: readonly StageExchange[] = [
  { exchange: 'bitfinex', symbols: ['BTCUSD', 'BTCF0:USTF0'] },
  { exchange: 'coinbase', symbols: ['BTC-USD'], entry: { channel: 'full' } },
  { exchange: 'bitstamp', symbols: ['btcusd'] },
  { exchange: 'kraken', symbols: ['BTC/USD'] },
  { exchange: 'okx', symbols: ['BTC-USDT', 'BTC-USDT-SWAP'], options: { okxChecksums: true } },
  { exchange: 'binance', symbols: ['BTCUSDT'] },
  { exchange: 'huobi', symbols: ['btcusdt'] }
]
const FAULTS = ['drop', 'corrupt-checksum', 'drop-trade', 'close', 'maintenance'] as const

type Name = keyof typeof RECORDS
const NAMES = Object.keys(RECORDS) as Name[]
const ajv = new Ajv2020({ allowUnionTypes: true, strictRequired: false })
const validators = Object.fromEntries(NAMES.map(name => [name, ajv.compile(jsonSchemaOf(name))])) as Record<
  Name,
  ValidateFunction
>

interface Line {
  readonly feed: string
  readonly exchange: string
  readonly text: string
}

/** The lines of a vault of every exchange, through faults and a change of the hour. */
let lines: Line[]

/** What a schema finds wrong with a line, and what the program does; empty: nothing. */
function faultsOf({ feed, text }: Line): string[] {
  const record: unknown = JSON.parse(text)
  const validate = validators[recordName(feed)!]
  const found = [recordFault(feed, record), validate(record) ? undefined : ajv.errorsText(validate.errors)]
  return found.flatMap((fault, at) => (fault === undefined ? [] : [`${['program', 'schema'][at]} ${feed}: ${fault}`]))
}

function linesOf(vault: string): Line[] {
  const raw = join(vault, 'raw')
  return readdirSync(raw, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && entry.name.endsWith('.jsonl'))
    .flatMap(entry => {
      const path = join(entry.parentPath, entry.name)
      const [exchange, feed] = path.slice(raw.length + 1).split(/[\\/]/) as [string, string]
      const texts = readFileSync(path, 'utf8').split('\n').filter(Boolean)
      return texts.map(text => ({ feed, exchange, text }))
    })
}

/** How many hours the streams of a feed have files of. */
const hoursOf = (folder: string) =>
  new Set(readdirSync(folder, { recursive: true, encoding: 'utf8' }).flatMap(path => /\d\d\.jsonl$/.exec(path) ?? []))
    .size

beforeAll(
  () =>
    onStage({ seed: 5, kind: 'records', exchanges: CAPTURED, eventsPerSecond: 30 }, async stage => {
      const clock = join(stage.folder, 'clock')
      writeFileSync(clock, '0\n')
      const running = stage.start({ env: { NODE_OPTIONS: `--require ${SHIM}`, CLOCK_FILE: clock } })
      await running.heard()
      for (const [at, { exchange, symbols }] of CAPTURED.entries()) {
        const known = simulatorFaultKinds(exchange as SimulatedExchange)
        for (const [turn, kind] of FAULTS.filter(kind => known.includes(kind)).entries())
          stage.simulators[at]!.inject({
            kind,
            afterMs: turn * APART_MS,
            instrument: symbols[0]!,
            ms: 1000,
            code: 1001
          })
      }
      await live(FAULTS.length * APART_MS + 1000)
      writeFileSync(clock, `${HOUR_MS}\n`)
      // Of a connection that is not open just then there is no state.
      await until(
        () => CAPTURED.every(({ exchange }) => hoursOf(join(stage.vault, 'raw', exchange, 'frames')) >= 2),
        () => stage.about('no change of the hour')
      )
      await live(APART_MS)
      expect(await running.stop()).toBe(0)
      lines = linesOf(stage.vault)
    }),
  90_000
)

/** What tells the forms of a record apart. */
function formOf({ feed, text }: Line): string {
  const { event_type, event, dir } = JSON.parse(text) as Row
  return `${recordName(feed)} ${String(event_type ?? event ?? dir ?? '')}`.trim()
}

describe('the records of a vault', () => {
  it('are what the schemas say, of every exchange', () => {
    expect([...new Set(lines.map(({ exchange }) => exchange))].sort()).toEqual(Object.keys(EXCHANGES).sort())
    expect(lines.flatMap(faultsOf).slice(0, 3)).toEqual([])
    const forms = new Set(lines.map(formOf))
    const wanted = ['l3_snapshot', 'l2_snapshot', 'trades']
    for (const type of ['clear', 'snapshot', 'gap']) wanted.push(`l3_events ${type}`, `l2_updates ${type}`)
    for (const type of ['open', 'change', 'match', 'done', 'received']) wanted.push(`l3_events ${type}`)
    for (const dir of ['open', 'in', 'out', 'http', 'tick', 'close', 'state']) wanted.push(`frames ${dir}`)
    const told = ['started', 'connected', 'subscribed', 'synced', 'gap', 'checksum_mismatch', 'disconnected', 'stopped']
    for (const event of told) wanted.push(`status ${event}`)
    expect(wanted.filter(form => !forms.has(form))).toEqual([])
  })

  it('have their keys in the order that is told', () => {
    for (const { feed, text } of lines) {
      const record = JSON.parse(text) as Row
      const keys = recordKeys(feed, record).filter(key => Object.hasOwn(record, key))
      expect(Object.keys(record)).toEqual(keys)
    }
  })

  it('are refused without any of their keys, with another one, and with a value of another type', () => {
    const samples = new Map(lines.map(line => [formOf(line), line]))
    for (const [form, { feed, exchange, text }] of samples) {
      const record = JSON.parse(text) as Row
      const spoil = (change: (copy: Row) => void, what: string) => {
        const copy = JSON.parse(text) as Row
        change(copy)
        const faults = faultsOf({ feed, exchange, text: JSON.stringify(copy) })
        expect(faults, `${form}: ${what}`).toHaveLength(2)
      }
      spoil(copy => (copy.stranger = 1), 'stranger')
      for (const key of Object.keys(record)) {
        spoil(copy => delete copy[key], `without ${key}`)
        // What was on the wire may be anything.
        if (key === 'msg') continue
        const isText = typeof record[key] === 'string'
        spoil(copy => (copy[key] = isText ? 7 : 'seven'), `wrong ${key}`)
      }
    }
  })

  it('are refused with keys in another order, in the words of a reader', () => {
    for (const { feed, text } of new Map(lines.map(line => [formOf(line), line])).values()) {
      const [first, ...others] = Object.entries(JSON.parse(text) as Row)
      expect(recordFault(feed, Object.fromEntries([...others, first!]))).toMatch(/^the key \w+ is not at its place$/)
    }
  })

  it('are told wrong in plain words', () => {
    const trade = JSON.parse(lines.find(({ feed }) => feed === 'trades')!.text) as Row
    expect(recordFault('trades', { ...trade, price: '-1' })).toBe('price is no unsigned decimal')
    expect(recordFault('trades', { ...trade, price: 1 })).toBe('price: Invalid input: expected string, received number')
    expect(recordFault('trades', { ...trade, size: undefined })).toBe('size is missing')
    expect(recordFault('trades', { ...trade, extra: 1 })).toBe('unknown key extra')
    expect(recordFault('trades', [])).toMatch(/^the record: .*expected object/)
    expect(recordFault('unheard_of', trade)).toBe('there is no feed unheard_of')
    const status = JSON.parse(lines.find(({ text }) => text.includes('"event":"synced"'))!.text) as Row
    expect(recordFault('status', { ...status, event: 'odd' })).toBe('event "odd" is not known')
    expect(recordFault('status', { ...status, detail: { conn: 'a-1' } })).toBe('detail.synced_at is missing')
    const shot = JSON.parse(lines.find(({ feed }) => feed === 'l2_spot')!.text) as Row
    const { asks_top400: asks, ...half } = shot
    expect(recordFault('l2_spot', half)).toBe('asks_top400 is missing')
    expect(recordFault('l2_spot', { ...half, asks_top5: asks })).toBe('asks_top400 is missing')
    expect(recordFault('l2_spot', { ...shot, bids_top5: [] })).toBe('the record: has sides of two depths')
    const level = (asks as string[][])[1]!
    for (const wrong of [
      level.slice(0, 3),
      [...level, '1'],
      ['-1', '1', '0', null],
      ['1', 1, '0', null],
      ['1', '1', 0, '1']
    ])
      expect(recordFault('l2_spot', { ...shot, asks_top400: [level, wrong] })).toBe(
        'asks_top400 has no level [price, size, "0", orders] at 1'
      )
    expect(recordFault('l3_spot', shot)).toBe('stats is missing')
  })

  it('of snapshots have their levels under keys of any depth', () => {
    const { text } = lines.find(({ feed }) => feed === 'l2_spot')!
    const record = JSON.parse(text.replaceAll('_top400"', '_top25"'))
    expect(faultsOf({ feed: 'l2_spot', exchange: '', text: JSON.stringify(record) })).toEqual([])
    expect(depthOf(record)).toBe(25)
    const { depth, bids, asks } = sidesOf(record)
    expect([depth, bids, asks]).toEqual([25, record.bids_top25, record.asks_top25])
    expect(bids.length).toBeGreaterThan(0)
  })
})

const conn = 'okx-1'
/** What no run of some seconds has, as the format tells it: the feed and its own keys. */
const RARE: readonly [feed: string, keys: Row][] = [
  [
    'status',
    { event: 'gap', detail: { conn, channel: 'trades', cause: 'trades', expected: 5, received: 7, why: 'stopped' } }
  ],
  ['status', { event: 'gap', detail: { reason: 'crossed', expected: null, received: '1 1', cause: 'crossed', conn } }],
  ['status', { event: 'checksum_mismatch', detail: { conn, verification: 'off', reason: 'every instrument fails' } }],
  ['status', { event: 'stalled', detail: { conn, channel: 'heartbeat', silent_ms: 9 } }],
  ['status', { event: 'resubscribed', detail: { conn, reason: 'silence', attempt: 1 } }],
  ['status', { event: 'refused', detail: { conn, channel: 'book', final: true, code: 10305, msg: 'no' } }],
  ['status', { event: 'maintenance', detail: { conn, code: 20060, reason: 'maintenance' } }],
  ['status', { event: 'writer_paused', detail: { reason: 'ENOSPC' } }],
  ['status', { event: 'writer_resumed', detail: { waited_bytes: 9 } }],
  ['status', { event: 'tail_repaired', detail: { moved_bytes: 9 } }],
  ['frames', { dir: 'skip', from: 1795190400000000, count: 3 }],
  ['frames', { dir: 'in', text: 'pong' }],
  ['frames', { dir: 'in', encoding: 'base64', unread: true, text: 'AA==' }],
  ['frames', { dir: 'close', code: null, reason: '', cause: 'lost' }]
]

describe('what happens rarely', () => {
  it.each(RARE)('%s %j is as the schemas say, and not without a key', (feed, keys) => {
    const head = { timestamp_utc: '2026-11-20T16:00:00.000Z', recv_us: 1795190400000000 }
    const common = { ...head, exchange: 'okx', market: 'spot', channel: 'books', instId: 'BTC-USDT' }
    const record = { ...(feed === 'frames' ? { recv_us: head.recv_us, conn, frame: 1 } : common), ...keys }
    const faults = (changed: Row) => faultsOf({ feed, exchange: 'okx', text: JSON.stringify(changed) })
    expect(faults(record)).toEqual([])
    const { detail, ...rest } = record as Row
    for (const key of Object.keys(detail ?? {})) {
      // The words of an exchange are open, and some things are told only where they are known.
      const isOpen = /^(?:code|msg|why)$/.test(key) || (keys.event === 'maintenance' && key === 'reason')
      if (isOpen || (key === 'conn' && JSON.stringify(detail).includes('"trades"'))) continue
      const { [key]: _, ...less } = detail as Row
      expect(faults({ ...rest, detail: less }), `without ${key}`).toHaveLength(2)
    }
    if (feed === 'frames') expect(faults({ ...record, msg: 1 }), 'with msg').toHaveLength(2)
  })
})

describe('the schemas', () => {
  it('are the ones in config/schemas: `npm run schemas` writes them', () => {
    expect(readdirSync(SCHEMAS).sort()).toEqual(NAMES.map(name => `${name}.schema.json`).sort())
    for (const name of NAMES) {
      const stored: unknown = JSON.parse(readFileSync(join(SCHEMAS, `${name}.schema.json`), 'utf8'))
      expect(stored, name).toEqual(JSON.parse(JSON.stringify(jsonSchemaOf(name))))
    }
  })

  it('are there for every feed', () => {
    expect(new Set(FEEDS.map(recordName))).toEqual(new Set(NAMES))
    expect(recordName('constructor')).toBeUndefined()
  })

  it('tell of every key what it means, and the format names every key of a record', () => {
    const format = readFileSync('src/vault/README.md', 'utf8')
    const untold: string[] = []
    const visit = (schema: Row, path: string) => {
      for (const [key, value] of Object.entries((schema.properties ?? {}) as Record<string, Row>)) {
        const forms = [value, ...((value.anyOf ?? []) as Row[])]
        const isTold = forms.some(form => form.description) || key === 'metadata' || key === 'detail'
        if (!isTold || (!path.includes('.') && !new RegExp(`\`${key}\\b`).test(format))) untold.push(`${path}.${key}`)
        for (const form of forms) visit(form, `${path}.${key}`)
      }
      for (const form of (schema.oneOf ?? []) as Row[]) visit(form, path)
    }
    for (const name of NAMES) visit(jsonSchemaOf(name), name)
    expect(untold).toEqual([])
  })
})

const l2 = { level: 'l2', market: null, channel: null, updateSpeed: null } as const
const TAPES: readonly (RecordingOptions & { exchange: string })[] = [
  {
    exchange: 'kraken',
    recording: 'kraken-v2-book10-btc',
    selection: l2,
    instIds: ['BTC/USD'],
    config: { depth: 10 },
    answer: () => []
  },
  {
    exchange: 'binance',
    recording: 'binance-usdm-btcusdt-1',
    selection: { ...l2, market: 'perp' },
    instIds: ['BTCUSDT'],
    linesMax: 3000,
    answer: ({ id }) => [{ result: null, id }]
  },
  {
    exchange: 'bitstamp',
    recording: 'bitstamp-diff-1',
    selection: l2,
    instIds: ['ethusd', 'xrpeur', 'sgbeur'],
    answer: ({ event, data }) =>
      event === 'bts:subscribe'
        ? [{ event: 'bts:subscription_succeeded', channel: (data as Row).channel, data: {} }]
        : []
  }
]

describe.skipIf(!hasRecordings)(`real traffic${NEEDS_RECORDINGS}`, () => {
  it.each(TAPES)('of $recording gives records as the schemas say', options => {
    const { derived, lines: frames } = tapeOfRecording(EXCHANGES[options.exchange]!, options)
    let feed = ''
    const found: Line[] = frames.map(text => ({ feed: 'frames', exchange: '', text }))
    for (const text of derived.split('\n').filter(Boolean)) {
      if (text.startsWith('{')) found.push({ feed, exchange: '', text })
      else feed = text.split('/')[0]!
    }
    expect(new Set(found.map(line => line.feed)).size).toBeGreaterThanOrEqual(4)
    expect(found.flatMap(faultsOf).slice(0, 3)).toEqual([])
  })

  it.each([
    { exchange: 'bitfinex', recording: 'bitfinex-r0-cs-1', instIds: ['BTCUSD'] },
    { exchange: 'okx', recording: 'okx-books-1', instIds: ['BTC-USD-220527', 'BTC-USDT', 'UNI-USD-SWAP'] }
  ])('of $recording gives records as the schemas say', ({ exchange: id, recording, instIds }) => {
    const frames = loadFrames(recording)
    const exchange = EXCHANGES[id]!
    const driver = new Driver(exchange, { cadenceMs: 500 }, frames[0]!.us - 10)
    driver.stepUs = 1
    driver.open('test-1', instIds, exchange.levels[0]!)
    play(driver, 'test-1', frames)
    const found = driver.sink.lines.map(({ feed, text }) => ({ feed, exchange: id, text }))
    expect(new Set(found.map(line => line.feed)).size).toBe(3 + instIds.length)
    expect(found.flatMap(faultsOf).slice(0, 3)).toEqual([])
  })
})
