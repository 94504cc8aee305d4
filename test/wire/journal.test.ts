import { gzipSync } from 'node:zlib'
import { beforeEach, describe, expect, it } from 'vitest'
import { Engine } from '../../src/capture/engine.ts'
import { okx } from '../../src/exchanges/okx.ts'
import { Journal } from '../../src/wire/journal.ts'
import { CONFIG, described, MemorySink, RecordedRequests, START_US } from '../helpers/driver.ts'
import { ASKS, BIDS, OkxPeer } from '../helpers/peers.ts'

const CONN = 'okx-1'
let lines: string[]
let journal: Journal
let requests: RecordedRequests
let sink: MemorySink
let us: number
let isFull: boolean

beforeEach(() => {
  lines = []
  us = START_US
  isFull = false
  requests = new RecordedRequests()
  sink = new MemorySink()
  const append = (_: number, line: string) => void lines.push(line)
  const appendAround = (_: number, before: string, frame: string, after: string) => append(0, before + frame + after)
  journal = new Journal(
    {
      exchange: okx,
      run: 'r',
      config: CONFIG,
      secrets: ['my-secret-key'],
      now: () => ++us,
      frames: () => ({ append, appendAround }),
      isFull: () => isFull
    },
    requests
  )
  journal.attach(new Engine(okx, sink, journal))
  journal.open(CONN, 'ws://127.0.0.1/', described(okx, ['BTC-USDT'], 'l2'), ['book', 'trades'], null)
})

const head = (frame: number, at = us) => `{"recv_us":${at},"conn":"okx-1","frame":${frame},"dir":"in",`
const say = (text: string | Buffer, isBinary = false) => journal.in(CONN, Buffer.from(text), isBinary)

it.each([
  ['short', '{"a":[1.50,"é",1e-7]}'],
  ['white space', ' { "a" :\t1 } '],
  ['long', `{"a":"${'x'.repeat(5000)}"}`],
  ['long and not ASCII', `{"a":"${'é€😀'.repeat(500)}"}`],
  ['numbers that no double holds', '{"a":12345678901234567890.10}'],
  ['keys twice', '{"a":1,"a":2}']
])('a JSON frame stands word for word in its line: %s', (_, text) => {
  say(text)
  expect(lines.at(-1)).toBe(`${head(2)}"msg":${text}}\n`)
})

it.each([
  ['pong', 'pong'],
  ['broken', '{"a":'],
  ['line break', '{"a":\n1}'],
  ['carriage return', '{"a":\r1}'],
  ['too deep', '['.repeat(101) + ']'.repeat(101)],
  ['nothing', '']
])('anything else as a string: %s', (_, text) => {
  say(text)
  expect(lines.at(-1)).toBe(`${head(2)}"text":${JSON.stringify(text)}}\n`)
})

it('what is no text is kept as base64, and what is too large as text; neither is read', () => {
  say(Buffer.from([0xff, 0xfe, 0x00]))
  expect(lines.at(-1)).toBe(`${head(2)}"encoding":"base64","unread":true,"text":"//4A"}\n`)
  say('pong', true)
  expect(lines.at(-1)).toBe(`${head(3)}"encoding":"base64","unread":true,"text":"cG9uZw=="}\n`)
  const large = `{"a":"${'x'.repeat(okx.limits.frameBytesMax)}"}`
  say(large)
  expect(lines.at(-1) === `${head(4)}"unread":true,"text":${JSON.stringify(large)}}\n`).toBe(true)
})

it('what cannot be kept is counted, marked and a gap', () => {
  const peer = new OkxPeer({ us, sent: requests.sent, in: (_, text) => say(text) }, CONN)
  peer.answer()
  peer.image(BIDS, ASKS)
  const before = lines.length
  isFull = true
  const from = us + 1
  for (let n = 0; n < 7; n++) peer.update([['62008', String(n + 1), '1']], [])
  journal.tick()
  expect(lines).toHaveLength(before)
  isFull = false
  peer.update([['62007', '1', '1']], [])
  const [skip, frame] = lines.slice(before).map(line => JSON.parse(line) as Record<string, unknown>)
  expect(skip).toEqual({ recv_us: us, conn: CONN, frame: before + 1, dir: 'skip', from, count: 7 })
  expect(frame).toMatchObject({ dir: 'in', frame: before + 2 })
  expect(sink.statuses('gap').map(row => row.detail)).toMatchObject([
    { reason: 'overload', received: 7 },
    { channel: 'trades', cause: 'overload', received: 7 }
  ])
  expect(requests.sent.at(-1)!.text).toContain('unsubscribe')
})

it('the frame line comes before anything that is derived from it', () => {
  const peer = new OkxPeer({ us, sent: requests.sent, in: (_, text) => say(text) }, CONN)
  peer.answer()
  peer.image(BIDS, ASKS)
  const frame = lines.length
  const snapshot = sink.records('l2_updates').at(-1)!
  expect(snapshot).toMatchObject({ conn: CONN, frame, recv_us: us })
  expect(JSON.parse(lines[frame - 1]!)).toMatchObject({ frame, recv_us: us })
})

it('a message that was sent stands in a line, and a closed connection takes no more', () => {
  journal.out(CONN, 'ping')
  journal.out(CONN, '{"op":"x"}')
  expect(lines.slice(-2).map(line => JSON.parse(line))).toMatchObject([
    { dir: 'out', text: 'ping', frame: 2 },
    { dir: 'out', msg: { op: 'x' }, frame: 3 }
  ])
  journal.close(CONN, 'stopped', 1000, 'stopped')
  const { length } = lines
  say('pong')
  journal.out(CONN, 'ping')
  journal.close(CONN, 'lost', 1006, 'again')
  journal.tick()
  expect(lines).toHaveLength(length)
  expect(journal.names).toEqual([])
})

describe('an answer to a REST request', () => {
  const request = { id: 'image-0-1', path: '/book?x=1' }
  const url = 'http://127.0.0.1/book?x=1'
  const line = () => lines.at(-1)!

  it('stands word for word in its line', () => {
    journal.fetched(CONN, url, request, 200, '{"bids":[["1.50","2"]],"n":1e-7}')
    expect(line()).toBe(
      `{"recv_us":${us},"conn":"okx-1","frame":${lines.length},"dir":"http","id":"image-0-1","method":"GET","url":"${url}",` +
        '"status":200,"msg":{"bids":[["1.50","2"]],"n":1e-7}}\n'
    )
  })

  it.each([
    ['with line breaks', '{\n "a": 1\n}'],
    ['no JSON', '<html>busy</html>'],
    ['empty', '']
  ])('%s is kept as text', (_, text) => {
    journal.fetched(CONN, url, request, 503, text)
    expect(JSON.parse(line())).toMatchObject({ dir: 'http', status: 503, text })
  })

  it('shows no secret, and says how it was asked', () => {
    const hide = (text: string) => text.replace(/"token":"[^"]*"/, '"token":"***"')
    const post = { body: 'nonce=1', headers: { 'API-Sign': 'signed' } }
    journal.fetched(CONN, url, { ...request, post, hide }, 200, '{"token":"deep-secret"}')
    expect(JSON.parse(line())).toMatchObject({ method: 'POST', msg: { token: '***' } })
    expect(line()).not.toMatch(/deep-secret|signed|nonce/)
  })

  it('shows no secret that the exchange sends back, in whatever form', () => {
    const post = { body: 'nonce=1', headers: { 'API-Sign': 'a-long-signature' } }
    journal.fetched(CONN, url, { ...request, post }, 200, '{"error":["bad my-secret-key, a-long-signature"]}')
    expect(JSON.parse(line())).toMatchObject({ msg: { error: ['bad ***, ***'] } })
    say('{"type":"error","reason":"no such key: my-secret-key"}')
    expect(line()).toMatch(/"msg":\{"type":"error","reason":"no such key: \*\*\*"\}\}\n$/)
  })

  it('of a connection that has ended is of no interest', () => {
    journal.close(CONN, 'lost', 1006, '')
    const before = lines.length
    journal.fetched(CONN, url, request, 200, '{}')
    expect(lines).toHaveLength(before)
  })
})

describe('binary frames', () => {
  const gzip = { ...okx, compression: 'gzip' as const }

  beforeEach(() => {
    const append = (_: number, text: string) => void lines.push(text)
    const appendAround = (_: number, before: string, frame: string, after: string) => append(0, before + frame + after)
    const parts = { run: 'r', config: CONFIG, secrets: [], now: () => ++us, frames: () => ({ append, appendAround }) }
    journal = new Journal({ ...parts, exchange: gzip, isFull: () => false }, requests)
    journal.attach(new Engine(gzip, sink, journal))
    journal.open(CONN, 'ws://127.0.0.1/', described(okx, ['BTC-USDT'], 'l2'), ['book', 'trades'], null)
  })

  it('of an exchange that compresses are kept as the text they hold', () => {
    journal.in(CONN, gzipSync('{"ping":12345678901234567890}'), true)
    expect(lines.at(-1)).toMatch(/"dir":"in","msg":\{"ping":12345678901234567890\}\}\n$/)
  })

  it.each([
    ['no gzip', Buffer.from('hello')],
    ['cut short', gzipSync('{"a":1}').subarray(0, 12)],
    ['a bomb', gzipSync(Buffer.alloc(okx.limits.frameBytesMax + 1, 32))]
  ])('%s is kept unread', (_, data) => {
    journal.in(CONN, data, true)
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({ unread: true, encoding: 'base64', text: data.toString('base64') })
  })
})

it('a connection that ends while others are at their tick has none after its end', () => {
  journal.open('okx-2', 'ws://127.0.0.1/', described(okx, ['ETH-USDT'], 'l2'), ['book', 'trades'], null)
  requests.hangup = name => journal.close(name, 'lost', 1006, 'cut')
  journal.hangup('okx-2', 'cut')
  journal.tick()
  expect(JSON.parse(lines.at(-1)!)).toMatchObject({ conn: 'okx-2', dir: 'close' })
  expect(journal.names).toEqual([CONN])
})

it('an hour does not begin with a book that has missed frames unless that is told at once', () => {
  const peer = new OkxPeer({ us, sent: requests.sent, in: (_, text) => say(text) }, CONN)
  peer.answer()
  peer.image(BIDS, ASKS)
  isFull = true
  peer.update([['62008', '1', '1']], [])
  us += 3_600_000_000
  // Still full, but another connection writes.
  journal.open('okx-2', 'ws://127.0.0.1/', described(okx, ['ETH-USDT'], 'l2'), ['book', 'trades'], null)
  expect(sink.records('l2_updates').at(-1)).toMatchObject({ event_type: 'gap', instId: 'BTC-USDT' })
  const dirs = lines.slice(-4).map(line => (JSON.parse(line) as { dir: string }).dir)
  expect(dirs).toContain('skip')
  expect(dirs.indexOf('state')).toBeLessThan(dirs.indexOf('skip'))
})
