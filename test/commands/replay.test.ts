import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { hourPath } from '../../src/vault/layout.ts'
import { ensureBuilt, recordsOf } from '../helpers/vault.ts'

type Row = Record<string, unknown>

const CLI = resolve('bin/l3cap.js')
const WAIT_MS = 30_000
const HOUR = Date.parse('2026-11-20T06:00:00Z') / 3_600_000
const START_US = HOUR * 3_600_000_000
/** The exchange, the folder and the name of an instrument, and its book feed. */
const SERVED: [exchange: string, name: string, feed: string][] = [
  ['bitfinex', 'BTCUSD', 'l3_events'],
  ['okx', 'BTC-USDT', 'l2_updates'],
  ['huobi', 'btcusdt', 'l2_updates'],
  ['binance', 'BTCUSDT', 'l2_updates']
]
let folder: string
/** Captured from the simulators. */
let recorded: string
/** Hand-made: two hours of two instruments, one of them compressed. */
let made: string
let lines: string[]

beforeAll(async () => {
  ensureBuilt()
  folder = mkdtempSync(join(tmpdir(), 'l3cap-replay-'))
  recorded = join(folder, 'recorded')
  made = join(folder, 'made')
  const config = join(folder, 'config.json')
  const exchanges = SERVED.map(([exchange, symbol]) => ({ exchange, symbols: [symbol] }))
  writeFileSync(config, JSON.stringify({ exchanges }))
  const where = ['--vault', recorded, '--log-dir', join(folder, 'logs')]
  const run = await l3cap('run', '--simulate', '--config', config, ...where, '--duration', '4s', '--cadence', '200ms')
  expect(run.code, run.stderr).toBe(0)
  lines = writeMade()
}, 60_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function l3cap(...given: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise(done => {
    const options = { timeout: WAIT_MS, maxBuffer: 2 ** 30 }
    execFile(process.execPath, [CLI, ...given], options, (error, stdout, stderr) => {
      done({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr })
    })
  })
}

function replay(...given: string[]) {
  return l3cap('replay', '--vault', made, ...given)
}

/** Events and trades of two instruments, a line each 100 ms in turn; gives all lines in order. */
function writeMade(): string[] {
  const all: string[] = []
  const files = new Map<string, string[]>()
  for (let n = 0; n < 400; n++) {
    const us = START_US + n * 18_000_000
    const at = new Date(us / 1000).toISOString()
    for (const [feed, name] of [
      ['l3_events', 'AAA'],
      ['l3_events', 'BBB'],
      ['trades', 'AAA']
    ] as const) {
      const type = n % 50 === 0 ? 'clear' : 'open'
      const text = `{"timestamp_utc":"${at}","recv_us":${us},"exchange":"okx","instId":"${name}","event_type":"${type}","n":${n}}`
      const path = hourPath(made, 'okx', feed, name, HOUR + Math.floor(n / 200))
      files.set(path, [...(files.get(path) ?? []), text])
      all.push(text)
    }
  }
  for (const [path, texts] of files) {
    mkdirSync(join(path, '..'), { recursive: true })
    const text = `${texts.join('\n')}\n`
    if (path.endsWith('06.jsonl')) writeFileSync(`${path}.gz`, gzipSync(text))
    else writeFileSync(path, `${text}{"timestamp_utc":"2026`)
  }
  return all
}

const exits = new Map<ChildProcess, Promise<number | null>>()

interface Child extends ChildProcess {
  /** All that it printed, and what of it on stderr. */
  said: () => string
  complaint: () => string
}

function start(given: readonly string[], env: Record<string, string> = {}): Child {
  const child = spawn(process.execPath, [CLI, ...given], { env: { ...process.env, ...env } })
  let said = ''
  let complaint = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', text => (said += String(text)))
  child.stderr.on('data', text => (complaint += String(text)))
  exits.set(child, new Promise(done => child.on('exit', done)))
  return Object.assign(child, { said: () => said, complaint: () => complaint })
}

async function until<T>(condition: () => T | undefined | false | null, about: () => string): Promise<T> {
  const endMs = performance.now() + WAIT_MS
  for (;;) {
    const found = condition()
    if (found) return found
    if (performance.now() > endMs) throw new Error(about())
    await new Promise(done => setTimeout(done, 20))
  }
}

describe('replay', () => {
  it('prints events and trades word for word in order, plain and compressed hours alike', async () => {
    const { code, stdout, stderr } = await replay()
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect(stdout).toBe(`${lines.join('\n')}\n`)
  })

  it('narrows to instruments, feeds and times', async () => {
    const { stdout } = await replay(
      '--symbol',
      'AAA',
      '--feeds',
      'trades',
      '--from',
      '2026-11-20 06:30',
      '--to',
      '2026-11-20T07:00:18Z'
    )
    const want = lines.filter((_, at) => at % 3 === 2).slice(100, 201)
    expect(stdout).toBe(`${want.join('\n')}\n`)
  })

  it('begins with the last image when asked', async () => {
    const { stdout } = await replay('--symbol', 'BBB', '--feeds', 'events', '--from', '2026-11-20T06:31:00Z', '--image')
    const want = lines.filter((_, at) => at % 3 === 1).slice(100)
    expect(stdout).toBe(`${want.join('\n')}\n`)
  })

  it('names every mistake at once', async () => {
    const { code, stderr } = await replay(
      ...['--symbol', 'CCC', '--feeds', 'candles', '--from', 'dawn', '--speed', '0', '--skip-idle', 'long', '--once']
    )
    expect(code).toBe(2)
    for (const word of ['--symbol CCC', '--feeds candles', '--speed 0', '--skip-idle long', '--once'])
      expect(stderr).toContain(word)
    expect(stderr).toMatch(/--from must be a time such as .*, not "dawn"$/m)
    expect(await replay('--since', '1h', '--from', '2026-11-20')).toMatchObject({ code: 2 })
  })

  it('says that there is nothing', async () => {
    const { code, stderr } = await replay('--to', '2020-01-01')
    expect(code).toBe(1)
    expect(stderr).toContain('no hours of')
  })

  it('tells damage by file and line, prints the rest, and ends with 1', async () => {
    const path = hourPath(made, 'okx', 'trades', 'BBB', HOUR)
    mkdirSync(join(path, '..'), { recursive: true })
    writeFileSync(path, `${lines[0]}\n\u001b[2J\n${lines[0]}\n`)
    const { code, stdout, stderr } = await replay('--symbol', 'BBB', '--feeds', 'trades')
    rmSync(join(path, '../..'), { recursive: true })
    expect(code).toBe(1)
    expect(stdout).toBe(`${lines[0]}\n${lines[0]}\n`)
    expect(stderr).toContain('raw/okx/trades/BBB/2026-11-20/06.jsonl:2: ')
    expect(stderr).not.toContain('\u001b')
  })

  it('ends at once and in silence when nobody reads any more', async () => {
    const large = join(folder, 'large')
    const path = hourPath(large, 'okx', 'trades', 'AAA', HOUR)
    mkdirSync(join(path, '..'), { recursive: true })
    writeFileSync(path, `${lines[0]}\n`.repeat(300_000))
    const child = start(['replay', '--vault', large])
    child.stdout!.once('data', () => child.stdout!.destroy())
    expect(await exits.get(child)).toBe(0)
    expect(child.complaint()).toBe('')
  })

  it('gives all of it to whoever reads slowly', async () => {
    const large = join(folder, 'large')
    const child = spawn(process.execPath, [CLI, 'replay', '--vault', large], { stdio: ['ignore', 'pipe', 'inherit'] })
    exits.set(child, new Promise(done => child.on('exit', done)))
    await new Promise(done => child.stdout.once('readable', done))
    let bytes = 0
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      // Each chunk lies for a while before the next one is taken.
      child.stdout.pause()
      setImmediate(() => child.stdout.resume())
    })
    expect(await exits.get(child)).toBe(0)
    expect(bytes).toBe((lines[0]!.length + 1) * 300_000)
  })

  it('is paced by the times of the lines', async () => {
    const took = async (...given: string[]) => {
      const began = performance.now()
      expect((await replay('--to', '2026-11-20T06:01:40Z', ...given)).code).toBe(0)
      return performance.now() - began
    }
    // 90 s of recording.
    const paced = await took('--speed', '60')
    expect(paced).toBeGreaterThan(1500)
    // Five pauses of 18 s become 1 s each.
    expect(await took('--speed', '60', '--skip-idle', '1s')).toBeLessThan(paced)
  })
})

/** A record without what differs from one capture to the next. */
function plain(row: Row): Row {
  const { timestamp_utc: _, recv_us: __, conn: ___, frame: ____, ...rest } = row
  return rest
}

/** The book that the events leave, before the gap at the end. */
function bookOf(rows: readonly Row[]): [string, unknown][] {
  const book = new Map<string, unknown>()
  for (const row of rows) {
    if (row.event_type === 'clear') book.clear()
    if (row.order_id === undefined) {
      for (const side of ['bids', 'asks']) {
        for (const [price, size] of row[side] as string[][]) {
          if (Number(size) === 0) book.delete(side + price)
          else book.set(side + price, size)
        }
      }
    } else if (row.event_type === 'done') book.delete(String(row.order_id))
    else if (row.order_id !== null) book.set(String(row.order_id), [row.price, row.size])
  }
  return [...book].sort(([a], [b]) => (a < b ? -1 : 1))
}

/** The recorded client subscribed to the book and to the trades; the server waits for as much. */
function sayTwice(socket: { send(text: string): void }): void {
  for (const channel of ['books', 'trades']) socket.send(`{"op":"subscribe","args":[{"channel":"${channel}"}]}`)
}

describe('replay --serve', () => {
  it.each(SERVED)(
    'plays %s %s to a capture, which records the same',
    async (exchange, name, feed) => {
      const serving = ['replay', '--vault', recorded, '--exchange', exchange, '--serve', '0', '--once', '--speed', '4']
      const server = start(serving)
      const [, words] = await until(() => /l3cap (run .*)\n/.exec(server.said()), server.said)
      const again = join(folder, `again-${exchange}`)
      const given = words!.replace('./vault-replayed', again).split(' ')
      const client = start([...given, '--log-dir', join(folder, 'logs'), '--cadence', '200ms'])
      expect(await exits.get(server), server.said() + client.said()).toBe(0)
      client.kill('SIGINT')
      expect(await exits.get(client), client.said()).toBe(0)
      const rows = (vault: string, of: string) =>
        recordsOf(vault, exchange, of, name)
          .map(plain)
          .filter(row => row.event_type !== 'gap')
      const [first, second] = [rows(recorded, feed), rows(again, feed)]
      const updates = (of: readonly Row[]) =>
        of.filter(row => row.event_type !== 'snapshot' && row.event_type !== 'clear')
      // Updates that waited for an image are a part of it, in the one capture perhaps of more than in the other.
      const count = Math.min(updates(first).length, updates(second).length)
      expect(count, client.said()).toBeGreaterThan(updates(first).length / 2)
      expect(updates(second).slice(-count)).toEqual(updates(first).slice(-count))
      expect(bookOf(second)).toEqual(bookOf(first))
      expect(rows(again, 'trades')).toEqual(rows(recorded, 'trades'))
      expect(first.length).toBeGreaterThan(20)
    },
    60_000
  )

  it('compresses what the exchange compresses', async () => {
    const server = start(['replay', '--vault', recorded, '--exchange', 'huobi', '--serve', '0', '--speed', 'max'])
    const url = await until(() => /ws +(ws:\S+\/feed)\n/.exec(server.said())?.[1], server.said)
    const socket = new WebSocket(url)
    socket.on('open', () => socket.send('{"sub":"market.btcusdt.mbp.400","id":"sub-1"}'))
    const [data, isBinary] = await new Promise<[Buffer, boolean]>(done => {
      socket.on('message', (bytes: Buffer, binary) => done([bytes, binary]))
    })
    expect(isBinary).toBe(true)
    expect(JSON.parse(gunzipSync(data).toString())).toMatchObject({ subbed: 'market.btcusdt.mbp.400' })
    server.kill('SIGINT')
    expect(await exits.get(server)).toBe(0)
  }, 30_000)

  it('answers what is not in the recording with 404, and refuses whoever comes when all is played', async () => {
    const server = start(['replay', '--vault', recorded, '--exchange', 'okx', '--serve', '0', '--speed', 'max'])
    const [, url] = await until(() => /rest +(http:\S+)/.exec(server.said()), server.said)
    expect((await fetch(`${url}/api/v5/public/instruments?instType=SPOT`)).status).toBe(404)
    // No address at all.
    expect((await fetch(`${url}//`, { method: 'POST', body: 'x' })).status).toBe(404)
    const close = (path: string) =>
      new Promise(done => {
        const socket = new WebSocket(url!.replace('http', 'ws') + path)
        socket.on('open', () => sayTwice(socket))
        socket.on('unexpected-response', (_, { statusCode }) => done(statusCode))
        socket.on('error', () => undefined)
        socket.on('close', code => done(code))
      })
    expect(await close('/nowhere')).toBe(404)
    expect(await close('/ws/v5/public')).toBe(1000)
    expect(await close('/ws/v5/public')).toBe(503)
    server.kill('SIGINT')
    expect(await exits.get(server)).toBe(0)
  }, 30_000)

  it('closes where frames are missing, and names what cannot be served', async () => {
    const copy = join(folder, 'holes')
    const root = join(recorded, 'raw', 'okx', 'frames', 'okx-1')
    const file = readdirSync(root, { recursive: true, withFileTypes: true }).find(entry => entry.isFile())!
    const path = join(file.parentPath, file.name)
    const texts = readFileSync(path, 'utf8').split('\n')
    const target = path.replace(recorded, copy)
    mkdirSync(join(target, '..'), { recursive: true })
    const [whole, cut] = [target, target.replace('okx-1', 'okx-2')]
    writeFileSync(whole, texts.toSpliced(30, 1).join('\n'))
    mkdirSync(join(cut, '..'), { recursive: true })
    writeFileSync(cut, texts.slice(1).join('\n'))
    const server = start(['replay', '--vault', copy, '--serve', '0', '--speed', 'max', '--once'])
    const [, url] = await until(() => /ws +(ws:\S+)/.exec(server.said()), server.said)
    expect(server.said()).toContain('okx-2 was open at the start; its opening is gone')
    const socket = new WebSocket(url!)
    socket.on('open', () => sayTwice(socket))
    let frames = 0
    socket.on('message', () => frames++)
    const code = await new Promise(done => socket.on('close', done))
    expect(code).toBe(1011)
    expect(frames).toBe(texts.slice(0, 30).filter(text => text.includes('"dir":"in"')).length)
    expect(await exits.get(server)).toBe(0)
  }, 30_000)
})
