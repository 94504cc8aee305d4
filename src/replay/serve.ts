/** Recorded connections as something that can be played again: which there are, their lines, and which one a client gets. */
import stringify from 'fast-json-stable-stringify'
import { L3capError } from '../core/errors.ts'
import type { FeedKind, Instrument } from '../core/instrument.ts'
import { asObject } from '../core/json.ts'
import { HOUR_US } from '../core/time.ts'
import type { HourFile } from '../vault/layout.ts'
import { listStreams, type Range, readHour, recvUsOf, type Stream } from '../vault/streams.ts'

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
  /** Its hour files, and the number of its `open` line in the first one. */
  readonly hours: HourFile[]
  readonly line: number
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
  /** What is wrong with which file. */
  readonly damaged: readonly string[]
}

interface Seen {
  readonly requests: Set<string>
  readonly damaged: string[]
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
  return KEEP_ALIVE.test(text)
}

/** What a REST request is compared by: method, path, and the query in any order. `address` is a path or a whole address. */
export function requestKey(method: string, address: string): string {
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
  const seen: Seen = { requests: new Set(), damaged: [] }
  const lost: string[] = []
  for (const stream of listStreams(vault, { exchange, feed: 'frames' }, { toUs })) {
    let first = stream.hours.findIndex(({ hour }) => (hour + 1) * HOUR_US > fromUs)
    if (first < 0) continue
    let isOpened = await beginsWithOpen(stream.hours[first]!)
    while (!isOpened && first > 0) isOpened = await beginsWithOpen(stream.hours[--first]!)
    const found = await livesOf(stream, first, toUs, seen)
    lives.push(...found.filter(life => life.endUs >= fromUs))
    if (!isOpened) lost.push(stream.name)
  }
  lives.sort((a, b) => a.openUs - b.openUs)
  return { lives, lost, ...seen }
}

async function beginsWithOpen({ path }: HourFile): Promise<boolean> {
  try {
    for await (const { lines } of readHour(path)) return HEAD.exec(lines[0]!.slice(0, HEAD_CHARS))?.[2] === 'open'
  } catch (error) {
    // Whoever reads the whole of it tells the damage.
    if (!(error instanceof L3capError)) throw error
  }
  return false
}

async function livesOf(stream: Stream, first: number, toUs: number | undefined, seen: Seen): Promise<Life[]> {
  const lives: Life[] = []
  let life: Life | undefined
  let isFirst = false
  const take = (text: string, dir: string, open: () => Life | undefined): void => {
    if (dir === 'open') {
      life = open()
      if (life) lives.push(life)
      isFirst = true
    } else if (life && dir !== 'tick' && dir !== 'state') {
      if (dir === 'http') seen.requests.add(keyOf(readPlayed(text)!.rest))
      else if (dir === 'out' && life.asked === undefined) noteAsked(life, text, isFirst)
      isFirst = false
      if (dir === 'close') life = undefined
    }
  }
  for (const file of stream.hours.slice(first)) {
    life?.hours.push(file)
    try {
      for await (const { lines, firstLine } of readHour(file.path, { toUs })) {
        for (const [at, text] of lines.entries()) {
          const us = recvUsOf(text)
          const before = life
          const head = text.slice(0, HEAD_CHARS)
          // Nearly all lines are frames that came.
          const dir = head.includes(IN) ? 'in' : HEAD.exec(head)?.[2]
          if (dir !== undefined) take(text, dir, () => openLife(text, file, firstLine + at))
          const current = dir === 'open' ? life : before
          if (current && us > current.endUs) current.endUs = us
        }
      }
    } catch (error) {
      if (!(error instanceof L3capError)) throw error
      seen.damaged.push(error.message)
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

function openLife(text: string, file: HourFile, line: number): Life | undefined {
  const { url, open } = JSON.parse(text) as Record<string, unknown>
  const { instruments, feeds } = asObject(open) ?? {}
  if (!Array.isArray(instruments) || !Array.isArray(feeds) || !URL.canParse(String(url))) return undefined
  return {
    conn: file.name,
    path: new URL(String(url)).pathname,
    instruments: instruments as Instrument[],
    feeds: feeds as FeedKind[],
    openUs: recvUsOf(text),
    endUs: recvUsOf(text),
    hours: [file],
    line,
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
export async function* readLife(life: Life): AsyncGenerator<PlayedLine> {
  let frame = 0
  let us = life.openUs
  for (const [hour, file] of life.hours.entries()) {
    for await (const { lines, firstLine } of readHour(file.path, { fromUs: life.openUs })) {
      const behind = hour === 0 ? Math.max(0, life.line - firstLine) : 0
      for (let at = behind; at < lines.length; at++) {
        const line = readPlayed(lines[at]!)
        if (frame === 0) {
          frame = line!.frame
          continue
        }
        if (line?.dir === 'open') return
        if (line?.frame !== frame + 1) {
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
}
