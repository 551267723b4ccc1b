// A tool and a document that all clients ask for. Their values are few, so that a small model is soon done.
import { z } from "zod";

export const question = "Is it raining in Bonn?";

export const Weather = z.object({ city: z.enum(["Oslo", "Bonn"]), rain: z.boolean() }).strict();
