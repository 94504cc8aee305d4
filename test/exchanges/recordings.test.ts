import { describe, expect, it } from 'vitest'
import { isoMs } from '../../src/core/time.ts'
import type { Exchange } from '../../src/exchanges/exchange.ts'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import {
  Driver,
  hasRecordings,
  loadFrames,
  NEEDS_RECORDINGS,
  play,
  type RecordedFrame,
  type Row
} from '../helpers/driver.ts'

const CONN = 'test-1'

/** What is known of a recording, and how its frames are told apart and falsified. */
interface Recorded {
  readonly exchange: string
  readonly recording: string
  readonly frames: (text: RecordedFrame[]) => RecordedFrame[]
  /** Frames that are added at the end, so that a loss of the last recorded one shows. */
  readonly tail: (frames: RecordedFrame[]) => string[]
  readonly checksums: number
  /** Whether the numbers of the chain are the recording's own. */
  readonly isChained: boolean
  /** Take every how-manieth frame for the tests that play the recording once for each. */
  readonly stride: number
}

interface Dialect {
  /** What a frame is; `numbered` is what the sequence counts besides books. */
  kind(text: string): 'image' | 'update' | 'numbered' | undefined
  instId(text: string): string
  readonly checksum: RegExp
  acknowledge(request: Row): string
  freshImage(image: string, frames: readonly RecordedFrame[], us: number): string
  isLeave(request: Row): boolean
  isAsk(request: Row): boolean
}

const BITFINEX_TAIL = /,(\d+),(\d+)\]$/
const DIALECTS: Record<string, Dialect> = {
  bitfinex: {
    kind: text => {
      if (!text.startsWith('[')) return undefined
      if (text.startsWith('[166098,[[')) return 'image'
      if (text.startsWith('[24,[[')) return undefined
      return text.startsWith('[166098,') ? 'update' : 'numbered'
    },
    instId: () => 'BTCUSD',
    checksum: /"cs",(-?\d+)/,
    acknowledge: ({ event, ...request }) =>
      JSON.stringify(
        event === 'unsubscribe'
          ? { event: 'unsubscribed', status: 'OK', ...request }
          : { event: 'subscribed', chanId: request.channel === 'book' ? 777 : 778, ...request }
      ),
    freshImage: (image, frames, us) => {
      const sequence = Number(BITFINEX_TAIL.exec(frames.at(-1)!.text)![1])
      return image.replace(/^\[\d+/, '[777').replace(BITFINEX_TAIL, `,${sequence + 1},${Math.floor(us / 1000)}]`)
    },
    isLeave: request => request.event === 'unsubscribe' && request.chanId === 166_098,
    isAsk: request => request.event === 'subscribe' && request.channel === 'book'
  },
  okx: {
    kind: text =>
      /"channel":"books"/.test(text)
        ? /"action":"(\w+)"/.exec(text)?.[1] === 'snapshot'
          ? 'image'
          : /"action"/.test(text)
            ? 'update'
            : undefined
        : undefined,
    instId: text => /"instId":"([^"]+)"/.exec(text)![1]!,
    checksum: /"checksum":(-?\d+)/,
    acknowledge: ({ id, op, args }) => JSON.stringify({ id, event: op, arg: (args as Row[])[0] }),
    freshImage: image => image.replace(/"seqId":\d+/, '"seqId":99999999'),
    isLeave: ({ op, args }) => op === 'unsubscribe' && (args as Row[])[0]?.channel === 'books',
    isAsk: ({ op, args }) => op === 'subscribe' && (args as Row[])[0]?.channel === 'books'
  }
}

const asRecorded = (frames: RecordedFrame[]) => frames
const RECORDINGS: readonly Recorded[] = [
  {
    exchange: 'bitfinex',
    recording: 'bitfinex-r0-cs-1',
    frames: asRecorded,
    tail: frames => [frames.at(-1)!.text.replace(/"cs",-?\d+,(\d+)/, (_, n) => `"hb",${Number(n) + 1}`)],
    checksums: 1,
    isChained: true,
    stride: 1
  },
  {
    exchange: 'okx',
    recording: 'okx-books-1',
    frames: asRecorded,
    tail: keepAlives,
    checksums: 290,
    isChained: false,
    stride: 3
  },
  {
    exchange: 'okx',
    recording: 'okx-books-l2-tbt-1',
    // The same protocol under another name, which only some accounts may subscribe.
    frames: frames => frames.map(({ us, text }) => ({ us, text: text.replaceAll('books-l2-tbt', 'books') })),
    tail: keepAlives,
    checksums: 3679,
    isChained: false,
    stride: 601
  },
  {
    exchange: 'okx',
    recording: 'okx-books-seqid-1',
    frames: asRecorded,
    tail: keepAlives,
    checksums: 0,
    isChained: true,
    stride: 1
  }
]

/** For each OKX book an update without levels that repeats its last number. */
function keepAlives(frames: RecordedFrame[]): string[] {
  const last = new Map<string, string>()
  for (const { text } of frames) {
    if (DIALECTS.okx!.kind(text)) last.set(DIALECTS.okx!.instId(text), /"seqId":(-?\d+)/.exec(text)?.[1] ?? '')
  }
  return [...last].map(
    ([instId, seqId]) =>
      `{"arg":{"channel":"books","instId":"${instId}"},"action":"update","data":[{"asks":[],"bids":[],"ts":"1",` +
      `"checksum":0,"prevSeqId":${seqId},"seqId":${seqId}}]}`
  )
}

/** OKX recordings from before there were numbers get hand-made ones, so that their chain can show a loss. */
function chained(frames: RecordedFrame[]): RecordedFrame[] {
  const last = new Map<string, number>()
  return frames.map(({ us, text }) => {
    const kind = DIALECTS.okx!.kind(text)
    if (kind === undefined) return { us, text }
    const instId = DIALECTS.okx!.instId(text)
    const before = last.get(instId) ?? 1000
    last.set(instId, before + 2)
    const numbers = `,"prevSeqId":${kind === 'image' ? -1 : before},"seqId":${before + 2}}]}`
    return { us, text: text.replace(/\}\]\}$/, numbers) }
  })
}

function instIdsOf(dialect: Dialect, frames: readonly RecordedFrame[]): string[] {
  return [
    ...new Set(frames.filter(({ text }) => dialect.kind(text) === 'image').map(({ text }) => dialect.instId(text)))
  ]
}

/** A driver that has played the frames. */
function played(
  exchange: Exchange,
  instIds: readonly string[],
  frames: readonly RecordedFrame[],
  onMismatch: 'three' | 'warn' = 'three'
): Driver {
  const driver = new Driver(exchange, { cadenceMs: 500, onMismatch }, frames[0]!.us - 10)
  driver.stepUs = 1
  driver.open(CONN, instIds, exchange.levels[0]!)
  play(driver, CONN, frames)
  return driver
}

/** The gaps of a capture. They must stand in status, events and snapshots alike. */
function gapsOf(driver: Driver): number {
  const events = [...driver.sink.records('l3_events'), ...driver.sink.records('l2_updates')]
  const inEvents = events.filter(row => row.event_type === 'gap').length
  const inStatus = driver.sink.statuses('gap').length
  const shots = driver.sink.lines.filter(({ feed }) => /^l[23]_(spot|perps|futures|options)$/.test(feed))
  const flagged = shots.filter(({ text }) => text.includes('"gap_detected":true')).length
  expect([inEvents, flagged]).toEqual([inStatus, inStatus])
  return inStatus
}

function without<T>(list: readonly T[], at: number): T[] {
  return [...list.slice(0, at), ...list.slice(at + 1)]
}

/** The text with the last digit of its checksum changed. */
function falsified(dialect: Dialect, text: string): string {
  return text.replace(dialect.checksum, whole => whole.slice(0, -1) + ((Number(whole.at(-1)) + 1) % 10))
}

describe.skipIf(!hasRecordings).each(RECORDINGS)(`$recording${NEEDS_RECORDINGS}`, recorded => {
  const exchange = EXCHANGES[recorded.exchange]!
  const dialect = DIALECTS[recorded.exchange]!
  const original = hasRecordings ? recorded.frames(loadFrames(recorded.recording)) : []
  const numbered = recorded.isChained ? original : chained(original)
  const lastUs = numbered.at(-1)?.us ?? 0
  const added = hasRecordings ? recorded.tail(numbered) : []
  const frames = [...numbered, ...added.map((text, at) => ({ us: lastUs + at + 1, text }))]
  const instIds = instIdsOf(dialect, original)
  const kinds = frames.map(({ text }) => dialect.kind(text))
  /** Places of the frames whose loss must show, without the added ones. */
  const places = kinds
    .flatMap((kind, at) => ((kind === 'update' || kind === 'numbered') && at < numbered.length ? [at] : []))
    .filter((_, n) => n % recorded.stride === 0)

  it('gives the same bytes twice, without a gap or a wrong checksum', () => {
    const first = played(exchange, instIds, original)
    const second = played(exchange, instIds, original)
    expect(first.sink.text()).toBe(second.sink.text())
    expect(gapsOf(first)).toBe(0)
    const events = first.sink.records('status').map(row => row.event)
    expect(new Set(events)).toEqual(new Set(['connected', 'subscribed', 'synced']))
    expect(events.filter(event => event === 'subscribed')).toHaveLength(instIds.length)
    expect(first.requests.logs).toEqual([])
    expect(first.requests.settledNames).toEqual([CONN])
    expect(first.requests.hangups).toEqual([])
    const images = original.filter(({ text }) => dialect.kind(text) === 'image').length
    expect(first.sink.statuses('synced')).toHaveLength(images)
    expect(first.sink.records('trades').length).toBeGreaterThan(0)
  })

  it('verifies every checksum: each false one is noticed, alone', () => {
    let noticed = 0
    // Every other one of a book, then the others: never two in a row, which would mean another thing.
    for (const parity of [0, 1]) {
      const seen = new Map<string, number>()
      let wrong = 0
      const some = original.map(({ us, text }) => {
        const match = dialect.checksum.exec(text)
        if (!match || match[1] === '0') return { us, text }
        const instId = dialect.instId(text)
        const count = seen.get(instId) ?? 0
        seen.set(instId, count + 1)
        if (count % 2 !== parity) return { us, text }
        wrong++
        return { us, text: falsified(dialect, text) }
      })
      const driver = played(exchange, instIds, some, 'warn')
      expect(driver.sink.statuses('checksum_mismatch')).toHaveLength(wrong)
      expect(gapsOf(driver)).toBe(0)
      noticed += wrong
    }
    expect(noticed).toBe(recorded.checksums)
  })

  it('any lost frame is exactly one gap, after which nothing is applied', () => {
    expect(places.length).toBeGreaterThan(2)
    for (const place of places) {
      const driver = played(exchange, instIds, without(frames, place))
      expect(gapsOf(driver), `without frame ${place}`).toBe(1)
      const lost = driver.sink.statuses('gap')[0]!
      expect(lost.detail).toMatchObject({ reason: 'sequence', cause: 'sequence', conn: CONN })
      const feed = exchange.levels[0] === 'l3' ? 'l3_events' : 'l2_updates'
      const lines = driver.sink.lines.filter(line => line.feed === feed && line.name === lost.instId)
      expect(lines.at(-1)!.text).toContain('"event_type":"gap"')
      expect(driver.sink.statuses('checksum_mismatch')).toEqual([])
    }
  })

  it('any doubled frame is applied once and is no gap', () => {
    const line = (driver: Driver) => driver.sink.text().replace(/"frame":\d+/g, '')
    const clean = line(played(exchange, instIds, frames))
    for (const [at, kind] of kinds.entries()) {
      if (kind === undefined || at % recorded.stride !== 0) continue
      // A doubled keep-alive is one more keep-alive.
      if (at >= numbered.length && recorded.exchange === 'okx') continue
      const doubled = [...frames.slice(0, at), frames[at]!, ...frames.slice(at)]
      const driver = played(exchange, instIds, doubled)
      expect(line(driver) === clean, `frame ${at} doubled`).toBe(true)
    }
  })

  it('any two neighbours in the wrong order are exactly one gap', () => {
    let swaps = 0
    for (const place of places) {
      const instId = dialect.instId(frames[place]!.text)
      const next = frames.findIndex(
        ({ text }, at) =>
          at > place && (kinds[at] === 'update' || kinds[at] === 'numbered') && dialect.instId(text) === instId
      )
      // The frames that were added to the end repeat a number: they have no order.
      if (next < 0 || (next >= numbered.length && recorded.exchange === 'okx')) continue
      swaps++
      const swapped = [...frames]
      swapped[place] = { us: frames[place]!.us, text: frames[next]!.text }
      swapped[next] = { us: frames[next]!.us, text: frames[place]!.text }
      expect(gapsOf(played(exchange, instIds, swapped)), `frame ${place} behind ${next}`).toBe(1)
    }
    expect(swaps).toBeGreaterThan(1)
  })

  it('a gap asks once for a new image, which heals it', () => {
    const place = places[Math.floor(places.length / 2)]!
    const driver = played(exchange, instIds, without(frames, place))
    const requests = () => driver.asked(CONN) as Row[]
    const asksAtFirst = instIds.length
    expect(requests().filter(dialect.isLeave)).toHaveLength(1)
    expect(requests().filter(dialect.isAsk)).toHaveLength(asksAtFirst)
    const gap = driver.sink.statuses('gap')[0]!
    const instId = String(gap.instId)
    expect(driver.sink.statuses('resubscribed', instId).map(row => row.detail)).toMatchObject([
      { reason: 'sequence', attempt: 1 }
    ])
    // Left channels are confirmed, and everything that is asked for then.
    let answered = requests().findIndex(request => dialect.isLeave(request))
    for (; answered < requests().length; answered++) driver.in(CONN, dialect.acknowledge(requests()[answered]!))
    expect(requests().filter(dialect.isAsk)).toHaveLength(asksAtFirst + 1)
    driver.us += 2_000_000
    const image = frames.find(({ text }, at) => kinds[at] === 'image' && dialect.instId(text) === instId)!
    driver.in(CONN, dialect.freshImage(image.text, frames, driver.us))
    const synced = driver.sink.statuses('synced', instId).at(-1)!
    expect(synced.recv_us).toBe(driver.us)
    expect(synced.detail).toEqual({
      conn: CONN,
      synced_at: isoMs(driver.us),
      down_ms: Math.round((driver.us - Number(gap.recv_us)) / 1000)
    })
    driver.pass(CONN, 500, 500)
    const shot = driver.sink.lines.filter(({ feed, name }) => /^l[23]_[sfpo]/.test(feed) && name === instId).at(-1)!
    expect(JSON.parse(shot.text)).toMatchObject({ gap_detected: false, synced_at: isoMs(Number(synced.recv_us)) })
    expect(gapsOf(driver)).toBe(1)
    expect(requests().filter(dialect.isLeave)).toHaveLength(1)
  })
})
