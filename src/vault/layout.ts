/** Where things stand in a vault: names of directories and files, and the walk over the hour files. */
import { createHash } from 'node:crypto'
import { type Dirent, lstatSync, readdirSync } from 'node:fs'
import { basename, join, sep } from 'node:path'
import { L3capError, messageOf } from '../core/errors.ts'
import { FEEDS } from '../core/instrument.ts'

/**
 * What an hour file is: `jsonl` the plain lines, `gz` the compressed ones, `torn` the half-written tails that were cut
 * off, `tmp` a compression that did not finish.
 */
export type HourKind = 'jsonl' | 'gz' | 'torn' | 'tmp'

/** The stream and the hour that a path names. `name` is the folder name; `hour` counts from the epoch, as `hourOf` does. */
export interface HourPath {
  readonly exchange: string
  readonly feed: string
  readonly name: string
  readonly hour: number
  readonly kind: HourKind
}

/** One regular file of an hour, with its path as given to the file system. */
export interface HourFile extends HourPath {
  readonly path: string
}

/** Which streams are meant; a missing key means all. `name` is the folder name, see `folderName`. */
export interface HourFilter {
  readonly exchange?: string | readonly string[] | undefined
  readonly feed?: string | readonly string[] | undefined
  readonly name?: string | readonly string[] | undefined
}

/** One date directory: all that the vault holds of one stream for one day. */
export interface DateDirectory {
  readonly path: string
  readonly exchange: string
  readonly feed: string
  readonly name: string
  /** The first hour of the day, counted from the epoch. */
  readonly firstHour: number
  /** The hour files in it, sorted by name; foreign files and links are not among them. */
  readonly files: readonly HourFile[]
}

const HOUR_MS = 3_600_000
const ENDINGS: Record<HourKind, string> = {
  jsonl: '.jsonl',
  gz: '.jsonl.gz',
  torn: '.jsonl.torn',
  tmp: '.jsonl.gz.tmp'
}
const SAFE = /^[A-Za-z0-9._-]+$/
/** File systems take 255 bytes; the files of a lock add up to 50. */
const NAME_CHARS_MAX = 200
const HASH_CHARS = 16
/** Names of devices on Windows, with any ending: a file of that name is written into nothing. */
const DEVICE = /^(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|$)/i

/**
 * The directory name of an instrument or connection: every character outside `A-Za-z0-9._-` becomes `-`. What no file
 * system takes is changed further: dots at the end become `-`, the name of a device gets a `-`, and more than 200
 * characters end in a hash of the whole name instead.
 */
export function folderName(name: string): string {
  const plain = name.replace(/[^A-Za-z0-9._-]/gu, '-').replace(DEVICE, '$&-')
  // Of dots alone two would lead out of the vault, and an empty name to the directory above.
  const folder = plain.replace(/\.+$/, dots => '-'.repeat(dots.length)) || '-'
  if (folder.length <= NAME_CHARS_MAX) return folder
  const hash = createHash('sha256').update(name).digest('hex').slice(0, HASH_CHARS)
  return `${folder.slice(0, NAME_CHARS_MAX - HASH_CHARS - 1)}-${hash}`
}

/** `<vault>/raw/<exchange>/<feed>/<folder>`. */
export function streamDir(vault: string, exchange: string, feed: string, name: string): string {
  return join(vault, 'raw', exchange, feed, folderName(name))
}

/** The connections of an exchange that have frames in the vault. */
export function connectionNames(vault: string, exchange: string): string[] {
  try {
    const entries = readdirSync(join(vault, 'raw', exchange, 'frames'), { withFileTypes: true })
    return entries.filter(entry => entry.isDirectory()).map(({ name }) => name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** The plain file of an hour (counted from the epoch): `<vault>/raw/<exchange>/<feed>/<folder>/<YYYY-MM-DD>/<HH>.jsonl`. */
export function hourPath(vault: string, exchange: string, feed: string, name: string, hour: number): string {
  const text = new Date(hour * HOUR_MS).toISOString()
  return join(streamDir(vault, exchange, feed, name), text.slice(0, 10), `${text.slice(11, 13)}.jsonl`)
}

/** `<vault>/meta/<exchange>/instruments/<folder>.json`: the stored metadata of an instrument. */
export function instrumentPath(vault: string, exchange: string, instId: string): string {
  return join(vault, 'meta', exchange, 'instruments', `${folderName(instId)}.json`)
}

/** `<vault>/meta/<exchange>/health/<folder>.json`: the health of the running capture of a connection. */
export function healthPath(vault: string, exchange: string, connection: string): string {
  return join(vault, 'meta', exchange, 'health', `${folderName(connection)}.json`)
}

/** `<vault>/meta/<exchange>/coverage/<folder>/<YYYY-MM-DD>.json`: what `check` found covered of a closed day. */
export function coveragePath(vault: string, exchange: string, name: string, date: string): string {
  return join(vault, 'meta', exchange, 'coverage', folderName(name), `${date}.json`)
}

/** `<vault>/meta/<exchange>/locks/<folder>.lock`: the lock of an instrument or a connection. */
export function lockPath(vault: string, exchange: string, name: string): string {
  return join(vault, 'meta', exchange, 'locks', `${folderName(name)}.lock`)
}

/** `<vault>/meta/retention.json`: the clock of the last retention. */
export function retentionStatePath(vault: string): string {
  return join(vault, 'meta', 'retention.json')
}

/** `<vault>/meta/retention.lock`: held while retention works on the vault. */
export function retentionLockPath(vault: string): string {
  return join(vault, 'meta', 'retention.lock')
}

/** The first hour of a date directory's name; undefined when it is no real date. */
function parseDate(text: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\d$/.test(text)) return undefined
  const moment = new Date(`${text}T00:00:00Z`)
  // Some engines roll 2023-02-30 over to March: only what prints the same again is a date.
  if (Number.isNaN(moment.getTime()) || moment.toISOString().slice(0, 10) !== text) return undefined
  return moment.getTime() / HOUR_MS
}

/** The hour of the day and the kind of an hour file's name. */
function parseFileName(text: string): { hourOfDay: number; kind: HourKind } | undefined {
  const match = /^([01]\d|2[0-3])(\..+)$/.exec(text)
  if (!match) return undefined
  for (const kind of Object.keys(ENDINGS) as HourKind[]) {
    if (ENDINGS[kind] === match[2]) return { hourOfDay: Number(match[1]), kind }
  }
  return undefined
}

/**
 * Reads a path relative to the vault. Undefined for everything that is not exactly an hour file: unknown feeds, dates
 * that no calendar has, hours outside 00-23, other endings, `.` and `..`.
 */
export function parseHourPath(relativePath: string): HourPath | undefined {
  const parts = relativePath.split(sep).join('/').split('/')
  if (parts.length !== 6) return undefined
  const [raw, exchange, feed, name, date, file] = parts as [string, string, string, string, string, string]
  if (raw !== 'raw' || !isStream(exchange, feed, name)) return undefined
  const firstHour = parseDate(date)
  const found = parseFileName(file)
  if (firstHour === undefined || !found) return undefined
  return { exchange, feed, name, hour: firstHour + found.hourOfDay, kind: found.kind }
}

function isStream(exchange: string, feed: string, name: string): boolean {
  return isFolder(exchange) && FEEDS.includes(feed) && isFolder(name)
}

function isFolder(text: string): boolean {
  return SAFE.test(text) && text !== '.' && text !== '..'
}

/**
 * The entries of a directory by name; none when it does not exist or is a link.
 * @throws {L3capError} `VAULT` when it cannot be read
 */
function entriesOf(directory: string): Dirent[] {
  try {
    if (!lstatSync(directory).isDirectory()) return []
    return readdirSync(directory, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw new L3capError('VAULT', `cannot read ${directory}: ${messageOf(error)}`, { cause: error })
  }
}

function matches(wanted: string | readonly string[] | undefined, have: string): boolean {
  return wanted === undefined || (typeof wanted === 'string' ? wanted === have : wanted.includes(have))
}

/**
 * Walks the date directories of a vault in the order exchange, feed, name, date. Links are never followed below the
 * vault directory itself. With `onTrouble` an unreadable directory is reported to it and passed over.
 * @throws {L3capError} `VAULT` when a directory cannot be read and there is no `onTrouble`
 */
export function* walkDates(
  vault: string,
  filter: HourFilter = {},
  onTrouble?: (directory: string, error: unknown) => void
): Generator<DateDirectory> {
  const folders = (directory: string): string[] => foldersIn(directory, onTrouble)
  const raw = join(vault, 'raw')
  for (const exchange of folders(raw)) {
    if (!matches(filter.exchange, exchange)) continue
    for (const feed of folders(join(raw, exchange))) {
      if (!FEEDS.includes(feed) || !matches(filter.feed, feed)) continue
      for (const name of folders(join(raw, exchange, feed))) {
        if (matches(filter.name, name)) yield* walkStream(vault, { exchange, feed, name }, onTrouble)
      }
    }
  }
}

/**
 * Walks the date directories of one stream (`name` is the folder name), as `walkDates` does.
 * @throws {L3capError} `VAULT` when a directory cannot be read and there is no `onTrouble`
 */
export function* walkStream(
  vault: string,
  stream: { readonly exchange: string; readonly feed: string; readonly name: string },
  onTrouble?: (directory: string, error: unknown) => void
): Generator<DateDirectory> {
  const directory = streamDir(vault, stream.exchange, stream.feed, stream.name)
  for (const date of foldersIn(directory, onTrouble)) {
    const firstHour = parseDate(date)
    if (firstHour === undefined) continue
    const path = join(directory, date)
    yield { ...stream, path, firstHour, files: hourFiles(path, readOrTell(path, onTrouble), stream, firstHour) }
  }
}

function readOrTell(directory: string, onTrouble?: (directory: string, error: unknown) => void): Dirent[] {
  try {
    return entriesOf(directory)
  } catch (error) {
    if (!onTrouble) throw error
    onTrouble(directory, error)
    return []
  }
}

function foldersIn(directory: string, onTrouble?: (directory: string, error: unknown) => void): string[] {
  const entries = readOrTell(directory, onTrouble)
  return entries.flatMap(entry => (entry.isDirectory() && isFolder(entry.name) ? [entry.name] : []))
}

function hourFiles(
  directory: string,
  entries: readonly Dirent[],
  stream: { exchange: string; feed: string; name: string },
  firstHour: number
): HourFile[] {
  return entries.flatMap(entry => {
    const found = entry.isFile() ? parseFileName(entry.name) : undefined
    if (!found) return []
    const path = join(directory, entry.name)
    return [{ ...stream, hour: firstHour + found.hourOfDay, kind: found.kind, path }]
  })
}

/**
 * The hour files of a vault (all kinds but `tmp`), sorted by exchange, feed, name and hour; the `.gz` of an hour stands
 * before the plain file, as its lines are older.
 * @throws {L3capError} `VAULT` when a directory cannot be read
 */
export function listHours(vault: string, filter: HourFilter = {}): HourFile[] {
  const order: readonly HourKind[] = ['gz', 'jsonl', 'torn']
  const found: HourFile[] = []
  for (const date of walkDates(vault, filter)) {
    const files = date.files.filter(file => file.kind !== 'tmp')
    found.push(...files.sort((a, b) => a.hour - b.hour || order.indexOf(a.kind) - order.indexOf(b.kind)))
  }
  return found
}

/** The exchanges of a vault, each with the folder names of its instruments and connections, sorted. */
export function listNames(vault: string): Map<string, string[]> {
  const found = new Map<string, string[]>()
  const directories = (path: string) => entriesOf(path).filter(entry => entry.isDirectory() && isFolder(entry.name))
  for (const exchange of directories(join(vault, 'raw'))) {
    const names = new Set<string>()
    for (const feed of FEEDS) {
      for (const name of directories(join(vault, 'raw', exchange.name, feed))) names.add(name.name)
    }
    found.set(exchange.name, [...names].sort())
  }
  return found
}

/** The path of a file of the same hour and another kind. */
export function siblingPath(file: HourFile, kind: HourKind): string {
  return join(file.path, '..', basename(file.path).slice(0, 2) + ENDINGS[kind])
}

/**
 * The filter for exchanges and symbols as a user writes them; empty lists mean all. A symbol is looked up among the names
 * of the vault, first to the letter, then by its letters and digits alone, so that `BTC/USD`, `BTC-USD` and `tBTCUSD`
 * find `BTCUSD`. What the vault does not hold is a mistake, with what it does hold.
 * @throws {L3capError} `VAULT` when a directory cannot be read
 */
export function narrowFilter(
  vault: string,
  exchanges: readonly string[],
  symbols: readonly string[]
): { filter: HourFilter; mistakes: string[] } {
  // Who wants everything need not be kept from it by one directory that cannot be read.
  if (exchanges.length === 0 && symbols.length === 0) return { filter: {}, mistakes: [] }
  const held = listNames(vault)
  const mistakes = exchanges
    .filter(exchange => !held.has(exchange))
    .map(exchange => `--exchange ${exchange}: the vault holds ${listing([...held.keys()])}`)
  const wanted = [...held].filter(([exchange]) => exchanges.length === 0 || exchanges.includes(exchange))
  const names = [...new Set(wanted.flatMap(([, list]) => list))].sort()
  const found = new Set<string>()
  for (const symbol of symbols) {
    const exact = names.filter(name => name === folderName(symbol))
    const matched = exact.length > 0 ? exact : names.filter(name => spellings(symbol).includes(letters(name)))
    for (const name of matched) found.add(name)
    if (matched.length === 0) mistakes.push(`--symbol ${symbol}: the vault holds ${listing(names)}`)
  }
  const filter: HourFilter = {
    exchange: exchanges.length > 0 ? exchanges : undefined,
    name: symbols.length > 0 ? [...found] : undefined
  }
  return { filter, mistakes }
}

function letters(name: string): string {
  return name.toUpperCase().replace(/[^A-Z0-9]/g, '')
}

/** Bitfinex writes a `t` before the name of a pair. */
function spellings(symbol: string): string[] {
  return /^t[A-Z]/.test(symbol) ? [letters(symbol), letters(symbol.slice(1))] : [letters(symbol)]
}

function listing(names: readonly string[]): string {
  const shown = 20
  if (names.length === 0) return 'none'
  return names.slice(0, shown).join(', ') + (names.length > shown ? ` and ${names.length - shown} more` : '')
}
