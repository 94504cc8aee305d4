import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { type WebSocket, WebSocketServer } from 'ws'
import { L3capError, messageOf } from '../core/errors.ts'
import { printable } from '../core/printable.ts'
import { isoMs } from '../core/time.ts'
import type { Exchange } from '../exchanges/exchange.ts'
import { EXCHANGES } from '../exchanges/registry.ts'
import {
  chooseLife,
  findLives,
  frameText,
  isKeepAlive,
  keyOf,
  type Life,
  type PlayedLine,
  partsOf,
  type Recording,
  readLife,
  requestKey
} from '../replay/serve.ts'
import { Tempo } from '../replay/tempo.ts'
import type { HourFilter } from '../vault/layout.ts'
import { listStreams, type Range } from '../vault/streams.ts'

/** What is served, where, and how fast. */
export interface ServePlan {
  readonly vault: string
  readonly filter: HourFilter
  readonly range: Range
  readonly port: number
  readonly speed: number
  readonly idleUsMax: number
  /** End when every recorded connection on the paths that clients came to was played. */
  readonly once: boolean
}

/** A recorded answer to a REST request. */
interface Answer {
  readonly status: number
  readonly text: string
}

const HOST = '127.0.0.1'
/** How long a client may be silent before it is taken for one that waits for the exchange to begin. */
const GREETING_MS = 300
/** How long the play waits for a client to say or ask what the recorded one did. */
const ASK_MS_MAX = 5000
/** How long a request waits for the play to come to its answer. */
const ANSWER_MS_MAX = 5000
/** How long a client may take to leave a connection that it has replaced. */
const LEAVE_MS_MAX = 10_000
const SLEEP_MS_MAX = 60_000
/** A client that leaves so shortly before the recorded end has seen it all. */
const END_US = 5_000_000
const CLOSING_MS_MAX = 1000
const UNSENT_BYTES_MAX = 4 * 1024 * 1024
const REQUEST_BYTES_MAX = 1024 * 1024
/** Answers to one request that nobody has asked for yet. */
const ANSWERS_MAX = 16
const CLOSE_REASON_CHARS_MAX = 100
const OVER = 'end of the recording'

/**
 * Serves the recorded frames of an exchange until SIGINT or SIGTERM, or with `once` until all is played.
 * @throws {L3capError} `USAGE` when the range has frames of none or of several exchanges, or nothing that can be served
 */
export async function serveRecording(plan: ServePlan): Promise<void> {
  const streams = listStreams(plan.vault, { exchange: plan.filter.exchange, feed: 'frames' }, plan.range)
  const [name, ...others] = [...new Set(streams.map(stream => stream.exchange))]
  const exchange = EXCHANGES[name ?? '']
  if (others.length > 0) throw new L3capError('USAGE', `--exchange is needed: one of ${[name, ...others].join(', ')}`)
  if (exchange === undefined) throw new L3capError('USAGE', `${plan.vault} holds no frames in that range`)
  const recording = await findLives(plan.vault, exchange.id, plan.range)
  for (const conn of recording.lost) tell(`${conn} was open at the start; its opening is gone: it cannot be served`)
  for (const what of recording.damaged) tell(what)
  if (recording.lives.length === 0)
    throw new L3capError('USAGE', `${plan.vault} holds no opening of a connection there`)
  const server = new ReplayServer(plan, exchange, recording)
  const port = await server.listen(plan.port)
  process.stdout.write(helpOf(exchange, recording.lives, port))
  const stopped = waitForSignal()
  await (plan.once ? Promise.race([stopped.promise, server.played]) : stopped.promise)
  stopped.forget()
  await server.close()
}

function tell(text: string): void {
  process.stderr.write(`l3cap: ${printable(text)}\n`)
}

/** Where it is, and what to type. Instruments that one command line can capture stand together. */
function helpOf(exchange: Exchange, lives: readonly Life[], port: number): string {
  const times = [Math.min(...lives.map(life => life.openUs)), Math.max(...lives.map(life => life.endUs))].map(isoMs)
  const text = [`recorded ${exchange.id}, ${times[0]} to ${times[1]}, ${lives.length} connections`]
  const groups = new Map<string, { path: string; names: Set<string>; level: string }>()
  for (const { path, instruments } of lives.filter(life => life.feeds.includes('book'))) {
    for (const { instId, level, market, channel } of instruments) {
      const { markets, channels } = exchange.choices
      const words = [`--level ${level}`]
      if (markets?.includes(market)) words.push(`--market ${market}`)
      if (channels?.[level]?.includes(channel)) words.push(`--channel ${channel}`)
      const key = words.join(' ')
      const group = groups.get(key) ?? { path, names: new Set<string>(), level }
      groups.set(key, group)
      group.names.add(instId)
    }
  }
  const rest = `http://${HOST}:${port}`
  for (const path of new Set(lives.map(life => life.path))) text.push(`  ws    ws://${HOST}:${port}${path}`)
  text.push(`  rest  ${rest}`, 'try:')
  for (const [words, { path, names, level }] of groups) {
    const { credentials } = exchange
    const isSecret = credentials?.levels.some(each => each === level)
    // Nobody looks at them.
    const env = isSecret ? credentials!.variables.map(variable => `${variable}=YW55 `).join('') : ''
    const symbols = [...names].sort().join(',')
    text.push(
      `  ${env}l3cap run --exchange ${exchange.id} --symbol ${symbols} ${words} ` +
        `--ws-url ws://${HOST}:${port}${path} --rest-url ${rest} --vault ./vault-replayed`
    )
  }
  return printable(`${text.join('\n')}\n`)
}

function waitForSignal(): { promise: Promise<void>; forget: () => void } {
  let end = (): void => undefined
  const promise = new Promise<void>(resolve => {
    end = resolve
  })
  const forget = (): void => {
    process.off('SIGINT', end)
    process.off('SIGTERM', end)
  }
  process.once('SIGINT', end)
  process.once('SIGTERM', end)
  return { promise, forget }
}

/** What a client has said so far. */
class Client {
  readonly socket: WebSocket
  /** Aborts when the connection has ended. */
  readonly ended = new AbortController()
  first: string | undefined
  private said = 0
  /** It says something else than the recorded one: it is not waited for any more. */
  private isOutOfStep = false
  private wake = (): void => undefined

  constructor(socket: WebSocket) {
    this.socket = socket
    socket.on('message', data => {
      const text = String(data)
      if (isKeepAlive(text)) return
      this.first ??= text
      this.said++
      this.wake()
    })
    socket.on('close', () => {
      this.ended.abort()
      this.wake()
    })
    // What a client sends that is no WebSocket ends its connection, and nothing else.
    socket.on('error', () => socket.terminate())
  }

  get isOpen(): boolean {
    return !this.ended.signal.aborted
  }

  /** Waits until it has said so many things; for a limited time, and not again when that was too short. */
  async heard(count: number): Promise<void> {
    if (this.isOutOfStep) return
    await this.waitFor(() => this.said >= count, ASK_MS_MAX)
    this.isOutOfStep = this.said < count
  }

  /** Waits for its first words, for a short time. */
  async greeting(): Promise<void> {
    await this.waitFor(() => this.said > 0, GREETING_MS)
  }

  private async waitFor(condition: () => boolean, ms: number): Promise<void> {
    let isOver = false
    const timer = setTimeout(() => {
      isOver = true
      this.wake()
    }, ms)
    while (this.isOpen && !condition() && !isOver) {
      await new Promise<void>(resolve => {
        this.wake = resolve
      })
    }
    clearTimeout(timer)
  }

  /** Sends a frame; resolves late when the client reads slowly. */
  async send(data: string | Buffer): Promise<void> {
    if (this.socket.bufferedAmount < UNSENT_BYTES_MAX) this.socket.send(data, () => undefined)
    else await new Promise<void>(resolve => this.socket.send(data, () => resolve()))
  }

  /** Waits for a time, or for its end. */
  async pause(ms: number): Promise<void> {
    if (this.isOpen) await sleep(ms, undefined, { signal: this.ended.signal }).catch(() => undefined)
  }
}

/** Brings requests and recorded answers together: whichever comes first waits for the other. */
class Desk {
  private readonly answers = new Map<string, Answer[]>()
  private readonly last = new Map<string, Answer>()
  private readonly waiting = new Map<string, ((answer: Answer | undefined) => void)[]>()
  private readonly expected = new Set<{ key: string; wake: () => void }>()

  /** The answer to a request: the next one that was recorded, or the last one again when no other comes in time. */
  async ask(key: string): Promise<Answer | undefined> {
    const ready = this.answers.get(key)?.shift()
    if (ready !== undefined) return ready
    const queue = this.waiting.get(key) ?? []
    this.waiting.set(key, queue)
    const answer = await new Promise<Answer | undefined>(resolve => {
      const timer = setTimeout(() => {
        queue.splice(queue.indexOf(give), 1)
        resolve(undefined)
      }, ANSWER_MS_MAX)
      const give = (found: Answer | undefined): void => {
        clearTimeout(timer)
        resolve(found)
      }
      queue.push(give)
      for (const expected of this.expected) if (expected.key === key) expected.wake()
    })
    return answer ?? this.last.get(key)
  }

  /** The play has come to an answer: it waits a while for somebody to ask for it, and leaves it here else. */
  async offer(key: string, answer: Answer, signal: AbortSignal): Promise<void> {
    if (!this.waiting.get(key)?.length && !signal.aborted) await this.asked(key, signal)
    this.last.set(key, answer)
    const give = this.waiting.get(key)?.shift()
    if (give) return give(answer)
    const queue = this.answers.get(key) ?? []
    this.answers.set(key, queue)
    queue.push(answer)
    if (queue.length > ANSWERS_MAX) queue.shift()
  }

  /** Waits until somebody asks, for a limited time. */
  private asked(key: string, signal: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      const wake = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', wake)
        this.expected.delete(entry)
        resolve()
      }
      const entry = { key, wake }
      const timer = setTimeout(wake, ASK_MS_MAX)
      signal.addEventListener('abort', wake)
      this.expected.add(entry)
    })
  }
}

/** A recorded exchange on loopback: WebSocket connections and REST answers. */
class ReplayServer {
  /** Resolves when every recorded connection on the paths that clients came to was played to its end. */
  readonly played: Promise<void>
  private readonly plan: ServePlan
  private readonly exchange: Exchange
  private readonly recording: Recording
  private readonly http: Server
  private readonly sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: REQUEST_BYTES_MAX
  })
  private readonly desk = new Desk()
  /** Connections that no client has had yet, in order. */
  private free: Life[]
  private playing = 0
  private readonly visited = new Set<string>()
  private finish = (): void => undefined

  constructor(plan: ServePlan, exchange: Exchange, recording: Recording) {
    this.plan = plan
    this.exchange = exchange
    this.recording = recording
    this.free = [...recording.lives]
    this.played = new Promise(resolve => {
      this.finish = resolve
    })
    this.http = createServer((request, response) => void this.answer(request, response))
    this.http.on('upgrade', (request, stream, head) => this.upgrade(request, stream, head))
  }

  /** Listens; resolves to the port. */
  async listen(port: number): Promise<number> {
    this.http.listen(port, HOST)
    try {
      await once(this.http, 'listening')
    } catch (error) {
      throw new L3capError('USAGE', `--serve ${port}: ${messageOf(error)}`, { cause: error })
    }
    return (this.http.address() as AddressInfo).port
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    for (const socket of this.sockets.clients) socket.terminate()
    this.http.closeAllConnections()
    await new Promise<void>(resolve => {
      this.http.close(() => resolve())
    })
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.resume()
    const key = requestKey(request.method ?? '', request.url ?? '/')
    const found = this.recording.requests.has(key) ? await this.desk.ask(key) : undefined
    const { status, text } = found ?? { status: 404, text: '{"error":"not in the recording"}' }
    // Nothing came when it was recorded, either (0), or what came is damaged.
    if (!(status >= 200 && status < 600)) return void response.destroy()
    response.writeHead(status, { 'content-type': 'application/json' }).end(text)
  }

  private upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    // A client that goes away in the middle of its handshake is no concern of ours.
    stream.on('error', () => stream.destroy())
    const path = (request.url ?? '/').split('?')[0]!
    const isKnown = this.recording.lives.some(life => life.path === path)
    if (isKnown && this.free.some(life => life.path === path)) {
      this.sockets.handleUpgrade(request, stream, head, socket => void this.serve(new Client(socket), path))
      return
    }
    const status = isKnown ? '503 All Is Played' : '404 Not Found'
    stream.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => stream.destroy())
  }

  private async serve(client: Client, path: string): Promise<void> {
    await client.greeting()
    const life = client.isOpen ? chooseLife(this.free, path, client.first) : undefined
    if (life === undefined) return client.socket.close(1000, OVER)
    this.free = this.free.filter(each => each !== life)
    this.playing++
    this.visited.add(path)
    const what = `${life.conn} of ${isoMs(life.openUs)}`
    process.stdout.write(printable(`${what}: a client has it\n`))
    const isWhole = await this.play(client, life).catch(error => {
      tell(`${what}: ${messageOf(error)}`)
      client.socket.close(1011, 'frames are damaged in the recording')
      return true
    })
    // The end that was said is heard before the server is gone.
    await client.pause(CLOSING_MS_MAX)
    this.playing--
    process.stdout.write(printable(`${what}: ${isWhole ? 'played' : 'the client left, it can be had again'}\n`))
    if (!isWhole) this.free = [...this.free, life].sort((a, b) => a.openUs - b.openUs)
    if (this.playing === 0 && !this.free.some(each => this.visited.has(each.path))) this.finish()
  }

  /** Plays a connection to a client; false when that left before its end. */
  private async play(client: Client, life: Life): Promise<boolean> {
    const { fromUs, toUs = Number.POSITIVE_INFINITY } = this.plan.range
    const tempo = new Tempo(this.plan.speed, fromUs, this.plan.idleUsMax)
    let asked = 0
    for await (const line of readLife(this.plan.vault, life)) {
      if (!client.isOpen) return life.endUs - line.us < END_US
      if (line.us >= toUs) break
      if (line.dir === 'out') {
        if (!isKeepAlive(frameText(line))) await client.heard(++asked)
        continue
      }
      if (line.dir === 'tick' || line.dir === 'state') continue
      for (let ms = tempo.waitMs(line.us, performance.now()); ms > 0; ms = tempo.waitMs(line.us, performance.now())) {
        await client.pause(Math.min(ms, SLEEP_MS_MAX))
        if (!client.isOpen) return life.endUs - line.us < END_US
      }
      if (line.dir === 'in') await this.sendFrame(client, line)
      else if (line.dir === 'http') await this.offer(client, line)
      else if (line.dir === 'close') {
        await this.end(client, line)
        return true
      } else if (line.dir === 'skip') {
        client.socket.close(1011, 'frames are missing in the recording')
        return true
      }
    }
    client.socket.close(1000, OVER)
    return true
  }

  private async sendFrame(client: Client, line: PlayedLine): Promise<void> {
    const isUnread = line.rest.startsWith(',"encoding":"base64"')
    const text = frameText(line)
    if (isUnread) await client.send(Buffer.from(text, 'base64'))
    else await client.send(this.exchange.compression === 'gzip' ? gzipSync(text) : text)
  }

  private async offer(client: Client, line: PlayedLine): Promise<void> {
    const status = Number(partsOf(line.rest).status)
    const marks = [',"msg":', ',"text":'].map(mark => line.rest.indexOf(mark)).filter(at => at >= 0)
    const text = frameText({ ...line, rest: line.rest.slice(Math.min(...marks)) })
    await this.desk.offer(keyOf(line.rest), { status, text }, client.ended.signal)
  }

  /** The end that was recorded: as the exchange made it, or as the client is expected to make it. */
  private async end(client: Client, line: PlayedLine): Promise<void> {
    const { code, reason, cause } = partsOf(line.rest)
    if (cause === 'replaced') await client.pause(LEAVE_MS_MAX)
    if (cause !== 'lost') return client.socket.close(1000, OVER)
    const isSendable =
      typeof code === 'number' && code >= 1000 && code < 5000 && ![1004, 1005, 1006, 1015].includes(code)
    if (isSendable) client.socket.close(code, String(reason).slice(0, CLOSE_REASON_CHARS_MAX))
    else client.socket.terminate()
  }
}
