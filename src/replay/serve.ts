/** Recorded connections as something that can be played again: which there are, their lines, and which one a client gets. */
import stringify from 'fast-json-stable-stringify'
import type { FeedKind, Instrument } from '../core/instrument.ts'
import { asObject } from '../core/json.ts'
import { HOUR_US, hourOf } from '../core/time.ts'
import { listStreams, type Range, recvUsOf, type Stream } from '../vault/streams.ts'
import { type Damage, readStream } from './lines.ts'
import { fail } from './vault.ts'

/** One recorded connection, from its `open` line to its end. */
export interface Life {
  readonly conn: string
  /** The path of its address: `/ws/2`. */
  readonly path: string
  readonly instruments: readonly Instrument[]
  readonly feeds: readonly FeedKind[]
  readonly openUs: number
  /** When its last line was written, µs. */
  endUs: number
  /** The lines of its connection's name, from the hour of its `open` line on. */
  readonly stream: Stream
  /** The first thing that was said on it, as `canonical` gives it; undefined when nothing was. */
  asked: string | undefined
  /** Whether that came before anything else. */
  asksFirst: boolean
}

/** What a vault has of an exchange's connections. */
export interface Recording {
  /** In the order in which they were opened. */
  readonly lives: readonly Life[]
  /** What was asked over REST, as `requestKey` gives it. */
  readonly requests: ReadonlySet<string>
  /** Connections that were open at the start, and whose opening is no longer in the vault. */
  readonly lost: readonly string[]
  /** What is wrong, the first of each file. */
  readonly damaged: readonly string[]
}

interface Seen {
  readonly requests: Set<string>
  /** By file. */
  readonly damaged: Map<string, string>
}

/** One line of a recorded connection. `rest` is its text behind `dir`, up to the end: `,"msg":[…]}`. */
export interface PlayedLine {
  readonly us: number
  readonly dir: string
  readonly rest: string
}

const HEAD = /^\{"recv_us":\d+,"conn":"(?:[^"\\]|\\.)*","frame":(\d+),"dir":"(\w+)"/
const IN = '"dir":"in"'
const HEAD_CHARS = 300
const MSG = ',"msg":'
/** What differs from one session to the next. */
const VOLATILE = ['id', 'req_id', 'reqid', 'cid', 'key', 'nonce', 'passphrase', 'signature', 'timestamp', 'token']
/** Parts of an address that only keep caches and thieves away. */
const VOLATILE_QUERY = ['_', 'nonce', 'signature', 'timestamp']
/** In a text without end the search for its brace would not end soon, either. */
const KEEP_ALIVE_CHARS_MAX = 200
const KEEP_ALIVE = /^\s*(?:"?p[io]ng"?|\{[^{}]*"p[io]ng"[^{}]*\})\s*$/i

/** A message without what differs from one session to the next (ids, times, secrets), to compare with another. */
export function canonical(text: string): string {
  const strip = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(strip)
    const object = asObject(value)
    if (object === undefined) return value
    const kept = Object.entries(object).filter(([key]) => !VOLATILE.includes(key))
    return Object.fromEntries(kept.map(([key, each]) => [key, strip(each)]))
  }
  try {
    return stringify(strip(JSON.parse(text)))
  } catch {
    // Not every message is JSON.
    return text
  }
}

/** Whether a message only keeps its connection alive: those come by the clock of the client. */
export function isKeepAlive(text: string): boolean {
  return text.length <= KEEP_ALIVE_CHARS_MAX && KEEP_ALIVE.test(text)
}

/** What a REST request is compared by: method, path, and the query in any order. `address` is a path or a whole address. */
export function requestKey(method: string, address: string): string {
  // Nobody has recorded what is no address.
  if (!URL.canParse(address, 'http://localhost')) return `${method} ${address}`
  const url = new URL(address, 'http://localhost')
  for (const name of VOLATILE_QUERY) url.searchParams.delete(name)
  url.searchParams.sort()
  return `${method} ${url.pathname}?${url.searchParams}`
}

/** The text of the frame in a line: as it was on the wire. */
export function frameText({ rest }: PlayedLine): string {
  if (rest.startsWith(MSG)) return rest.slice(MSG.length, -1)
  const { msg, text } = partsOf(rest)
  return typeof text === 'string' ? text : JSON.stringify(msg)
}

/** The keys of a line behind `dir`. Throws `SyntaxError` when it is no JSON. */
export function partsOf(rest: string): Record<string, unknown> {
  return JSON.parse(`{${rest.slice(1)}`) as Record<string, unknown>
}

/**
 * Which of the connections that are left a client gets: on its path the earliest one that began with the same message; one that
 * did not begin by saying something when the client says nothing; else the earliest. Undefined when there is none on the path.
 */
export function chooseLife(lives: readonly Life[], path: string, message: string | undefined): Life | undefined {
  const fitting = lives.filter(life => life.path === path)
  const asked = message === undefined ? undefined : canonical(message)
  const found = fitting.find(life => (asked === undefined ? !life.asksFirst : life.asked === asked))
  return found ?? fitting[0]
}

/**
 * Finds the connections of an exchange that lived in a range. Those that were open at its start are looked for in earlier hours.
 * @throws {L3capError} `VAULT` when a directory cannot be read
 */
export async function findLives(vault: string, exchange: string, range: Range): Promise<Recording> {
  const { fromUs = Number.NEGATIVE_INFINITY, toUs } = range
  const lives: Life[] = []
  const seen: Seen = { requests: new Set(), damaged: new Map() }
  const lost: string[] = []
  for (const stream of listStreams(vault, { exchange, feed: 'frames' }, { toUs })) {
    let first = stream.hours.findIndex(({ hour }) => (hour + 1) * HOUR_US > fromUs)
    if (first < 0) continue
    let isOpened = await beginsWithOpen(vault, stream, first)
    while (!isOpened && first > 0) isOpened = await beginsWithOpen(vault, stream, --first)
    const found = await livesOf(vault, { ...stream, hours: stream.hours.slice(first) }, toUs, seen)
    lives.push(...found.filter(life => life.endUs >= fromUs))
    if (!isOpened) lost.push(stream.name)
  }
  lives.sort((a, b) => a.openUs - b.openUs)
  return { lives, lost, requests: seen.requests, damaged: [...seen.damaged.values()] }
}

async function beginsWithOpen(vault: string, stream: Stream, at: number): Promise<boolean> {
  const hour = { ...stream, hours: stream.hours.slice(at, at + 1) }
  // Whoever reads the whole of it tells the damage.
  for await (const { lines } of readStream(vault, hour, {}, () => undefined)) return dirOf(lines[0]!) === 'open'
  return false
}

/** What a line is; undefined when it is none of frames. */
function dirOf(text: string): string | undefined {
  const head = text.slice(0, HEAD_CHARS)
  // Nearly all lines are frames that came.
  return head.includes(IN) ? 'in' : HEAD.exec(head)?.[2]
}

async function livesOf(vault: string, stream: Stream, toUs: number | undefined, seen: Seen): Promise<Life[]> {
  const lives: Life[] = []
  let life: Life | undefined
  let isFirst = false
  const take = (text: string, dir: string): void => {
    if (dir === 'open') {
      // Of one that cannot be read the lines belong to nobody.
      life = undefined
      life = openLife(text, stream)
      if (life) lives.push(life)
      isFirst = true
    } else if (life && dir !== 'tick' && dir !== 'state') {
      if (dir === 'http') seen.requests.add(keyOf(readPlayed(text)!.rest))
      else if (dir === 'out' && life.asked === undefined) noteAsked(life, text, isFirst)
      isFirst = false
    }
  }
  const note = (file: string, what: string): void => {
    if (!seen.damaged.has(file)) seen.damaged.set(file, what)
  }
  const onDamage = ({ file, message }: Damage): void => note(file, message)
  for await (const { lines, file, firstLine, hour } of readStream(vault, stream, { toUs }, onDamage)) {
    for (const [at, text] of lines.entries()) {
      const us = recvUsOf(text)
      const dir = dirOf(text)
      try {
        if (dir === undefined || hourOf(us) !== hour) throw new SyntaxError('it is no frame of this hour')
        take(text, dir)
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error
        note(file, `${file}:${firstLine + at}: ${error.message}`)
        continue
      }
      if (life && us > life.endUs) life.endUs = us
      if (dir === 'close') life = undefined
    }
  }
  return lives
}

function noteAsked(life: Life, text: string, isFirst: boolean): void {
  const message = frameText(readPlayed(text)!)
  if (isKeepAlive(message)) return
  life.asked = canonical(message)
  life.asksFirst = isFirst
}

/** The key of the request in an `http` line. */
export function keyOf(rest: string): string {
  const { method, url } = partsOf(rest)
  return requestKey(String(method), String(url))
}

function openLife(text: string, stream: Stream): Life | undefined {
  const { url, open } = JSON.parse(text) as Record<string, unknown>
  const { instruments, feeds } = asObject(open) ?? {}
  if (!Array.isArray(instruments) || !Array.isArray(feeds) || !URL.canParse(String(url))) return undefined
  const us = recvUsOf(text)
  return {
    conn: stream.name,
    path: new URL(String(url)).pathname,
    instruments: instruments as Instrument[],
    feeds: feeds as FeedKind[],
    openUs: us,
    endUs: us,
    stream: { ...stream, hours: stream.hours.filter(({ hour }) => hour >= hourOf(us)) },
    asked: undefined,
    asksFirst: false
  }
}

function readPlayed(text: string): (PlayedLine & { frame: number }) | undefined {
  const match = HEAD.exec(text)
  if (!match) return undefined
  return { us: recvUsOf(text), frame: Number(match[1]), dir: match[2]!, rest: text.slice(match[0].length) }
}

/**
 * The lines of a connection behind its `open` line, up to its `close`. Where lines are missing or broken stands one with `dir`
 * `skip`, and no more follow, as behind one that was recorded.
 * @throws {L3capError} `VAULT`, `VAULT_DAMAGED` when a file cannot be read
 */
export async function* readLife(vault: string, life: Life): AsyncGenerator<PlayedLine> {
  let frame = 0
  let us = life.openUs
  for await (const { lines } of readStream(vault, life.stream, { fromUs: us }, fail)) {
    for (const text of lines) {
      const line = readPlayed(text)
      const isOpen = line?.dir === 'open'
      if (frame === 0 && isOpen) {
        frame = line.frame
        continue
      }
      if (isOpen) return
      if (line?.frame !== frame + 1 || frame === 0) {
        yield { us, dir: 'skip', rest: ',"count":null}' }
        return
      }
      frame = line.frame
      us = line.us
      yield line
      if (line.dir === 'close' || line.dir === 'skip') return
    }
  }
}
