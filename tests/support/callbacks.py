"""Callbacks as A360 sends them."""

import json
from typing import Any, Final

AS_A360_SENDS_THEM: Final[list[dict[str, Any]]] = [
    {
        "userId": "14",
        "deploymentId": "3e225573-4e78-48c8-bb08-efbeeb795c22",
        "status": "RUN_COMPLETED",
        "botOutput": {},
    },
    {
        "deviceId": "44",
        "userId": "4934",
        "deploymentId": "f6d30428-15d1-41e9-a952-0742eaaa5a31",
        "status": "RUN_COMPLETED",
        "botOutput": {"resultado": "exitoso", "archivo_generado": "reporte.xlsx"},
    },
    {
        "userId": 23,
        "deviceId": 7,
        "deploymentId": "8c29b906-2518-41c5-ada8-07b83508b5b8",
        "status": "COMPLETED",
    },
    {
        "deploymentId": "f9a72a39-1422-4a02-af97-906ce79c32a3",
        "status": "RUN_FAILED",
        "userId": "8",
        "botOutput": {
            "oError": {
                "type": "STRING",
                "string": 'No se encontró el elemento "Aceptar" en la ventana «Facturación»',
            }
        },
    },
    {
        "deploymentId": "b6941a48-10cc-465d-bf53-178bd2939bd1",
        "status": "RUN_ABORTED",
        "userId": "8",
        "botOutput": {"message": "Detenido por el operador"},
    },
    {
        "deploymentId": "536f7568-c5f9-45a2-8758-d78f1e747586",
        "status": "RUN_TIMED_OUT",
        "userId": "9",
        "deviceId": None,
        "botOutput": None,
    },
    {"deploymentId": "9ea8ea97-8a84-468a-a302-ec7d74b2a2e6", "status": "DEPLOY_FAILED"},
    {
        "deploymentId": "ea96b92c-6229-4646-9ef6-fae8d37bd2c1",
        "status": "UNKNOWN",
        "userId": "1",
    },
    {
        "deploymentId": "ce88f312-a6a0-49ec-93ee-7829c12ec991",
        "status": "RUN_COMPLETED",
        "userId": "31",
        "botOutput": {
            "oDict": {
                "type": "DICTIONARY",
                "dictionary": [
                    {"key": "cliente", "value": {"type": "STRING", "string": "Ñandú S.A."}},
                    {"key": "saldo", "value": {"type": "NUMBER", "number": "-12.5"}},
                ],
            }
        },
    },
    {
        "type": "BOT_EXECUTION",
        "userId": "55",
        "deploymentId": "1e60afc7-4d4a-4f8b-aa4f-600a6e47325e",
        "status": "RUN_COMPLETED",
        "automationName": "Conciliación bancaria – 日次",
        "botOutput": {"oEmoji": {"type": "STRING", "string": "✅ listo 🤖"}},
    },
    {"deploymentId": "9B21516C-27D5-407E-883A-46859F79D5E7", "status": "RUN_COMPLETED"},
    {"deploymentId": "  e4b19529-5733-4721-80f1-d26a8b38107b ", "status": " RUN_COMPLETED "},
    {
        "status": "RUN_COMPLETED",
        "botOutput": {
            "oNested": {
                "type": "DICTIONARY",
                "dictionary": [
                    {
                        "key": f"k{row}",
                        "value": {
                            "type": "LIST",
                            "list": [
                                {"type": "STRING", "string": f"v{row}-{column}"}
                                for column in range(20)
                            ],
                        },
                    }
                    for row in range(40)
                ],
            }
        },
        "deploymentId": "0d6c1c2e-7a55-4b60-9d65-1a6f6f0f7c11",
    },
    {"deploymentId": "xyz-789", "status": "COMPLETED", "botOutput": {"resultado": "OK"}},
    {
        "deploymentId": "04019ade-1b84-41ff-b7e1-dcefa5e35b29",
        "status": "RUN_FAILED",
        "botOutput": {
            "oTrace": {"type": "STRING", "string": "línea 1\nlínea 2\ttab\r\nC:\\RPA\\Logs\\SAM"}
        },
        "userId": "3",
        "extra": {"a": [1, 2.5, None, True]},
    },
    {"deploymentId": "142f01ec-1df2-40df-9222-4ae66c46957b", "status": "EN_COLA_NUEVO_ESTADO"},
]


def body(deployment_id: str = "d-1", status: str = "RUN_COMPLETED") -> bytes:
    """A small callback."""
    return json.dumps({"deploymentId": deployment_id, "status": status}).encode()
