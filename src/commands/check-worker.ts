import { parentPort, workerData } from 'node:worker_threads'
import { L3capError, messageOf } from '../core/errors.ts'
import { checkTask } from './check-task.ts'
import type { CheckScope, CheckTask } from './check-tasks.ts'

// A thread of `l3cap check`: takes pieces one after the other and answers each with what it found or its error.
const port = parentPort
const scope = workerData as CheckScope
port?.on('message', (task: CheckTask) => {
  checkTask(task, scope, chars => port.postMessage({ chars })).then(
    piece => port.postMessage({ piece }),
    (error: unknown) =>
      port.postMessage({ error: messageOf(error), code: error instanceof L3capError ? error.code : undefined })
  )
})
