import { HOUR_US } from '../core/time.ts'
import { folderName, type HourFile } from '../vault/layout.ts'
import { readBytes } from '../vault/reader.ts'
import type { CheckTask, FramesTask, InstrumentTask } from './check-tasks.ts'

/** What is asked for: empty lists mean all; `names` are folder names. */
export interface Wanted {
  readonly exchanges: readonly string[]
  readonly names: readonly string[]
  readonly fromUs: number
  readonly toUs: number
  /** The newest minutes of the instruments, and no frames. */
  readonly isLive: boolean
}

/** Hours of an instrument up to this size are read from their begin, so that the book is known. */
const SMALL_BYTES = 8 * 1024 * 1024
const HEAD_BYTES = 64 * 1024

/**
 * The pieces of a check: each instrument, and each exchange and hour of frames. Only hours that overlap the range; of the
 * connections only those that a wanted instrument has. The largest pieces come first, so that threads end together.
 */
export async function planCheck(
  files: readonly (HourFile & { readonly bytes: number })[],
  wanted: Wanted
): Promise<CheckTask[]> {
  const { fromUs, toUs } = wanted
  const inRange = files.filter(({ kind, hour, exchange }) => {
    const isLines = kind === 'jsonl' || kind === 'gz'
    const isWanted = wanted.exchanges.length === 0 || wanted.exchanges.includes(exchange)
    return isLines && isWanted && (hour + 1) * HOUR_US > fromUs && hour * HOUR_US < toUs
  })
  const sizes = new Map(inRange.map(({ path, bytes, kind }) => [path, kind === 'gz' ? bytes * 8 : bytes]))
  const sizeOf = (task: CheckTask): number => filesOf(task).reduce((sum, { path }) => sum + (sizes.get(path) ?? 0), 0)
  const openings = new Map<string, Opening>()
  for (const file of inRange) if (file.feed === 'frames') openings.set(file.path, await readOpening(file))
  const instruments = planInstruments(inRange, wanted, openings)
  const tasks = wanted.isLive
    ? instruments.map(task => ({ ...task, readFromUs: sizeOf(task) > SMALL_BYTES ? fromUs : undefined }))
    : [...instruments, ...planFrames(inRange, files, wanted, openings)]
  return tasks
    .map(task => ({ task, size: sizeOf(task) }))
    .sort((a, b) => b.size - a.size)
    .map(({ task }) => task)
}

/** The files that a piece reads. */
export function filesOf(task: CheckTask): readonly HourFile[] {
  return task.kind === 'frames' ? task.connections.flatMap(({ files }) => files) : task.files
}

type Openings = ReadonlyMap<string, Opening>

function planInstruments(files: readonly HourFile[], { names }: Wanted, openings: Openings): InstrumentTask[] {
  const cadences = new Map<string, Set<number>>()
  for (const { path, exchange } of files) {
    const cadenceMs = openings.get(path)?.cadenceMs
    if (cadenceMs != null) cadences.set(exchange, (cadences.get(exchange) ?? new Set()).add(cadenceMs))
  }
  const tasks = new Map<string, InstrumentTask & { files: HourFile[] }>()
  for (const file of files) {
    const { exchange, name, feed } = file
    if (feed === 'frames' || (names.length > 0 && !names.includes(name))) continue
    const key = `${exchange}/${name}`
    const [cadenceMs, other] = cadences.get(exchange) ?? []
    const known = other === undefined ? cadenceMs : undefined
    const task = tasks.get(key) ?? { kind: 'instrument', exchange, name, files: [], cadenceMs: known }
    tasks.set(key, task)
    task.files.push(file)
  }
  return [...tasks.values()]
}

function planFrames(
  files: readonly HourFile[],
  all: readonly HourFile[],
  { names }: Wanted,
  openings: Openings
): FramesTask[] {
  const later = new Map<string, string>()
  for (const { feed, exchange, name, hour, path, kind } of all) {
    const key = `${exchange}/${name}/${hour - 1}`
    if (feed === 'frames' && (kind === 'gz' || (kind === 'jsonl' && !later.has(key)))) later.set(key, path)
  }
  const derived = new Map<string, HourFile[]>()
  const hours = new Map<string, Map<string, HourFile[]>>()
  for (const file of files) {
    const key = `${file.exchange}/${file.hour}`
    if (file.feed === 'frames') {
      const connections = hours.get(key) ?? new Map<string, HourFile[]>()
      hours.set(key, connections)
      connections.set(file.name, [...(connections.get(file.name) ?? []), file])
    } else if (names.length === 0 || names.includes(file.name)) {
      const list = derived.get(key) ?? []
      derived.set(key, list)
      list.push(file)
    }
  }
  return [...hours].flatMap(([key, found]): FramesTask[] => {
    const [exchange, hour] = key.split('/') as [string, string]
    const connections = [...found]
      .filter(([, list]) => isFor(openings.get(list[0]!.path)?.names ?? null, names))
      .map(([name, list]) => ({ name, files: list, next: later.get(`${exchange}/${name}/${hour}`) ?? null }))
    if (connections.length === 0) return []
    return [{ kind: 'frames', exchange, hour: Number(hour), connections, derived: derived.get(key) ?? [], names }]
  })
}

function isFor(instruments: readonly string[] | null, names: readonly string[]): boolean {
  return names.length === 0 || instruments === null || instruments.some(name => names.includes(name))
}

/** What the first line of an hour of frames says: whom the connection is for, and how often snapshots are due. */
interface Opening {
  /** Folder names; null where they cannot be told. */
  readonly names: readonly string[] | null
  readonly cadenceMs: number | null
}

async function readOpening(file: HourFile): Promise<Opening> {
  try {
    for await (const bytes of readBytes(file.path)) {
      const text = bytes.toString('utf8', 0, HEAD_BYTES)
      const list = /"instruments":\[(.*?)\]/.exec(text)?.[1]
      const cadence = /"cadenceMs":(\d+)[,}]/.exec(text)?.[1]
      const found = [...(list ?? '').matchAll(/"instId":("(?:[^"\\]|\\.)*")/g)]
      const names = list === undefined ? null : found.map(([, instId]) => folderName(JSON.parse(instId!) as string))
      return { names, cadenceMs: cadence === undefined ? null : Number(cadence) }
    }
  } catch {
    // Whoever reads it whole tells why it cannot be read.
  }
  return { names: null, cadenceMs: null }
}
