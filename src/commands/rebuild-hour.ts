import { Playback } from '../capture/playback.ts'
import { L3capError, messageOf } from '../core/errors.ts'
import { EXCHANGES } from '../exchanges/registry.ts'
import { folderName } from '../vault/layout.ts'
import { VaultWriter } from '../vault/writer.ts'
import { FrameSource, playSources } from './frame-source.ts'

/** One hour of one exchange: the frames files of its connections, `.gz` before the plain one of the same connection. */
export interface HourTask {
  readonly exchange: string
  readonly out: string
  /** Paths of one connection each, in order. */
  readonly connections: readonly (readonly string[])[]
  /** Folder names of the instruments to write; empty: all. */
  readonly names: readonly string[]
}

/** What a rebuild of an hour did. */
export interface HourReport {
  readonly frames: number
  readonly lines: number
  readonly unused: number
  /** What is wrong with which file; a gap stands in the feeds at each place. */
  readonly damaged: readonly string[]
}

/** Lines that may wait for the disk. */
const PENDING_BYTES_MAX = 8 * 1024 * 1024

/** Rebuilds the derived feeds of one hour from its frames alone. */
export async function rebuildHour(task: HourTask): Promise<HourReport> {
  const exchange = EXCHANGES[task.exchange]
  if (exchange === undefined) throw new L3capError('USAGE', `exchange ${task.exchange} is unknown`)
  let refusal: L3capError | undefined
  const writer = new VaultWriter(task.out, {
    pendingMax: Number.POSITIVE_INFINITY,
    onPause: reason => {
      refusal = new L3capError('VAULT', `cannot write to ${task.out}: ${reason}`)
    },
    onResume: () => undefined
  })
  let lines = 0
  const nowhere = { append: () => undefined }
  const playback = new Playback(exchange, {
    stream: (feed, name) => {
      // `status` tells of the capture itself (starts, stops, disks): not everything in it can be read from frames.
      if (feed === 'status' || (task.names.length > 0 && !task.names.includes(folderName(name)))) return nowhere
      const stream = writer.stream(task.exchange, feed, name)
      return {
        append: (us, line) => {
          lines++
          stream.append(us, line)
        }
      }
    }
  })
  const sources = task.connections.map(paths => new FrameSource(paths))
  const frames = await playSources(
    sources,
    source => playback.play(source.head!),
    () => {
      if (refusal !== undefined) throw refusal
      return writer.pendingBytes > PENDING_BYTES_MAX ? writer.drain() : undefined
    }
  )
  if (refusal !== undefined) throw refusal
  await writer.close().catch(error => {
    throw new L3capError('VAULT', `cannot write to ${task.out}: ${messageOf(error)}`, { cause: error })
  })
  return { frames, lines, unused: playback.unused, damaged: sources.flatMap(source => source.damaged) }
}
