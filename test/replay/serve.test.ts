import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, expect, it } from 'vitest'
import { HOUR_US } from '../../src/core/time.ts'
import { canonical, chooseLife, findLives, isKeepAlive, readLife, requestKey } from '../../src/replay/serve.ts'
import { Tempo } from '../../src/replay/tempo.ts'
import { hourPath } from '../../src/vault/layout.ts'

const HOUR = 498_678
const START_US = HOUR * HOUR_US
const vault = mkdtempSync(join(tmpdir(), 'l3cap-serve-'))
afterAll(() => rmSync(vault, { recursive: true, force: true }))

/** Writes an hour of a connection: each row is its time in the hour, and the text from `dir` on. The first number is given. */
function writeHour(conn: string, hour: number, frame: number, rows: readonly [us: number, rest: string][]): void {
  const path = hourPath(vault, 'kraken', 'frames', conn, HOUR + hour)
  const texts = rows.map(([us, rest], at) => {
    const number = rest.startsWith('"open"') ? 1 : frame + at
    return `{"recv_us":${START_US + hour * HOUR_US + us},"conn":"${conn}","frame":${number},"dir":${rest}}\n`
  })
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, texts.join(''))
}

function open(url: string): string {
  return `"open","run":"r","url":"${url}","open":{"v":3,"instruments":[{"instId":"BTC/USD"}],"feeds":["book"]}`
}

const STATUS = '"in","msg":{"channel":"status"}'
const SUBSCRIBE = (channel: string) =>
  `"out","msg":{"method":"subscribe","params":{"channel":"${channel}","token":"***"},"req_id":1}`

it('finds connections and where they began, also in hours before the range', async () => {
  writeHour('k-1', 0, 1, [
    [1, open('wss://ws-l3.kraken.com/v2')],
    [2, STATUS],
    [3, SUBSCRIBE('level3')],
    [9, STATUS]
  ])
  writeHour('k-1', 1, 5, [
    [0, '"state","run":"r","state":{}'],
    [4, STATUS],
    [5, '"close","code":1006,"reason":"","cause":"lost"']
  ])
  writeHour('k-2', 1, 1, [
    [2, open('wss://ws.kraken.com/v2')],
    [3, SUBSCRIBE('trade')],
    [4, STATUS]
  ])
  writeHour('k-3', 1, 70, [
    [0, '"state","run":"r","state":{}'],
    [4, STATUS]
  ])
  const url = 'https://api.kraken.com/0/private/GetWebSocketsToken?nonce=17'
  writeHour('k-4', 2, 1, [
    [1, open('wss://ws.kraken.com/v2')],
    [2, `"http","id":"1","method":"POST","url":"${url}","status":200,"msg":{}`]
  ])
  const range = { fromUs: START_US + HOUR_US + 1, toUs: START_US + 3 * HOUR_US }
  const { lives, lost, requests, damaged } = await findLives(vault, 'kraken', range)
  expect(lives.map(life => [life.conn, life.path, life.openUs - START_US, life.asksFirst])).toEqual([
    ['k-1', '/v2', 1, false],
    ['k-2', '/v2', HOUR_US + 2, true],
    ['k-4', '/v2', 2 * HOUR_US + 1, false]
  ])
  expect(lives[0]!.endUs).toBe(START_US + HOUR_US + 5)
  expect([lost, damaged, [...requests]]).toEqual([['k-3'], [], ['POST /0/private/GetWebSocketsToken?']])
  const dirs: string[] = []
  for await (const line of readLife(vault, lives[0]!)) dirs.push(line.dir)
  expect(dirs).toEqual(['in', 'out', 'in', 'state', 'in', 'close'])
  // Who says the same gets the same, whatever the ids; who says nothing, one that did not begin to speak.
  const message = '{"req_id":7,"method":"subscribe","params":{"token":"secret","channel":"trade"}}'
  expect(chooseLife(lives, '/v2', message)?.conn).toBe('k-2')
  expect(chooseLife(lives.slice(1), '/v2', undefined)?.conn).toBe('k-4')
  expect(chooseLife(lives, '/v2', '{"method":"other"}')?.conn).toBe('k-1')
  expect(chooseLife(lives, '/v1', message)).toBeUndefined()
})

it('reads an hour once that is there twice, and one that was compressed meanwhile', async () => {
  const rows: [number, string][] = [
    [1, open('wss://ws.kraken.com/v2')],
    [2, STATUS],
    [3, '"close","code":1000,"reason":"","cause":"stopped"']
  ]
  for (const conn of ['d-1', 'd-2']) writeHour(conn, 5, 1, rows)
  const pathOf = (conn: string) => hourPath(vault, 'kraken', 'frames', conn, HOUR + 5)
  const compress = (conn: string) => writeFileSync(`${pathOf(conn)}.gz`, gzipSync(readFileSync(pathOf(conn))))
  compress('d-1')
  const { lives } = await findLives(vault, 'kraken', { fromUs: START_US + 5 * HOUR_US, toUs: START_US + 6 * HOUR_US })
  expect(lives.map(({ conn }) => conn)).toEqual(['d-1', 'd-2'])
  compress('d-2')
  rmSync(pathOf('d-2'))
  for (const life of lives) {
    const dirs: string[] = []
    for await (const line of readLife(vault, life)) dirs.push(line.dir)
    expect(dirs).toEqual(['in', 'close'])
  }
})

it('names damaged lines, and goes on', async () => {
  writeHour('b-1', 8, 1, [
    [1, open('wss://ws.kraken.com/v2').replace('"open":{', '"open":[')],
    [2, STATUS]
  ])
  writeHour('b-2', 8, 1, [
    [1, open('wss://ws.kraken.com/v2')],
    [2, '"http","id":"1","method":"GET","url":"http://[","status":200,"msg":{'],
    [3, '"out","text":"half'],
    [4, STATUS],
    [9e15, STATUS]
  ])
  appendFileSync(hourPath(vault, 'kraken', 'frames', 'b-2', HOUR + 8), '\0\0\n')
  const { lives, damaged } = await findLives(vault, 'kraken', { fromUs: START_US + 8 * HOUR_US })
  expect(lives.map(({ conn, endUs }) => [conn, endUs - START_US - 8 * HOUR_US])).toEqual([['b-2', 4]])
  expect(damaged.map(text => text.split(' ')[0])).toEqual([
    expect.stringMatching(/^raw\/kraken\/frames\/b-1\/.*:1:$/),
    expect.stringMatching(/^raw\/kraken\/frames\/b-2\/.*:2:$/)
  ])
})

it('compares messages and requests without what differs each time', () => {
  expect(canonical('{"b":[{"id":1,"x":2}],"a":"***"}')).toBe(
    canonical('{"a":"***","id":"z","b":[{"x":2,"timestamp":9}]}')
  )
  expect(canonical('{"a":1}')).not.toBe(canonical('{"a":2}'))
  expect(canonical('hello')).toBe('hello')
  expect(requestKey('GET', '/book?b=2&_=17&a=1')).toBe(requestKey('GET', 'https://x.com/book?a=1&b=2'))
  expect(requestKey('GET', '/book?a=1')).not.toBe(requestKey('POST', '/book?a=1'))
  for (const text of ['ping', '{"pong":17}', '{"op":"ping"}', '{"event":"ping","cid":1}'])
    expect(isKeepAlive(text)).toBe(true)
  expect(isKeepAlive('{"event":"subscribe","channel":"pings"}')).toBe(false)
  expect(requestKey('GET', '//')).toBe('GET //')
})

it('is not held up by a message that is made for it', () => {
  const took = (count: number) => {
    const began = performance.now()
    for (let n = 0; n < 20; n++) isKeepAlive(`{${'"ping"'.repeat(count)}`)
    return performance.now() - began + 1
  }
  // What takes the square of the length would take 10,000 times as long.
  expect(took(2000) / took(20)).toBeLessThan(100)
})

it('keeps time without drift, lets what lies before the start pass, and shortens pauses', () => {
  const tempo = new Tempo(2, 1_000_000, 3_000_000)
  expect(tempo.waitMs(500_000, 70)).toBe(0)
  expect(tempo.waitMs(1_000_000, 100)).toBe(0)
  expect(tempo.waitMs(2_000_000, 100)).toBe(500)
  // Late by 30 ms: the next one is due as if it had not been.
  expect(tempo.waitMs(2_000_000, 630)).toBe(-30)
  expect(tempo.waitMs(3_000_000, 630)).toBe(470)
  expect(tempo.dueUs(1100)).toBe(3_000_000)
  // A pause of 60 s becomes one of 3 s, and what follows it moves along.
  expect(tempo.waitMs(63_000_000, 1100)).toBe(1500)
  expect(tempo.waitMs(64_000_000, 1100)).toBe(2000)
  expect(new Tempo(Number.POSITIVE_INFINITY).dueUs(0)).toBe(Number.POSITIVE_INFINITY)
})
