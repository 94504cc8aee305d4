import { Worker } from 'node:worker_threads'
import { type ErrorCode, L3capError } from '../core/errors.ts'
import { checkTask } from './check-task.ts'
import type { CheckPiece, CheckScope, CheckTask } from './check-tasks.ts'

/** What a thread says: how much it read, or how a piece ended. */
interface Answer {
  readonly chars?: number
  readonly piece?: CheckPiece
  readonly error?: string
  readonly code?: ErrorCode
}

/**
 * Does the pieces of a check, `jobs` at a time, each in a thread; here, when there is one job or one piece. The order of
 * what they give is that of the tasks.
 * @throws {L3capError} what a piece threw
 */
export async function runPieces(
  tasks: readonly CheckTask[],
  scope: CheckScope,
  jobs: number,
  onChars: (chars: number) => void
): Promise<CheckPiece[]> {
  const pieces: CheckPiece[] = new Array(tasks.length)
  let next = 0
  const each = async (run: (task: CheckTask) => Promise<CheckPiece>): Promise<void> => {
    for (let at = next++; at < tasks.length; at = next++) pieces[at] = await run(tasks[at]!)
  }
  if (jobs === 1 || tasks.length < 2) {
    await each(task => checkTask(task, scope, onChars))
    return pieces
  }
  const work = async (): Promise<void> => {
    const worker = new Worker(new URL('./check-worker.js', import.meta.url), { workerData: scope })
    try {
      await each(task => ask(worker, task, onChars))
    } finally {
      await worker.terminate()
    }
  }
  await Promise.all(Array.from({ length: Math.min(jobs, tasks.length) }, work))
  return pieces
}

function ask(worker: Worker, task: CheckTask, onChars: (chars: number) => void): Promise<CheckPiece> {
  return new Promise((resolve, reject) => {
    const listen = ({ chars, piece, error, code }: Answer): void => {
      if (chars !== undefined) return onChars(chars)
      worker.off('message', listen)
      worker.off('error', reject)
      if (piece !== undefined) resolve(piece)
      else reject(new L3capError(code ?? 'VAULT', error ?? 'a thread ended without an answer'))
    }
    worker.once('error', reject)
    worker.on('message', listen)
    worker.postMessage(task)
  })
}
